"""What a person is told of a courier file that was written or brought."""

from edge.local import Json

_PUT_BACK = (
    "an old copy was put back, and only a sync with the hub gives the terminal the new identity that seals"
    " them."
)
_REVOKED = (
    "an operator has revoked the terminal, and only pairing it anew (`farebox-hub invite` prints a code)"
    " gives it the new identity that seals them."
)
_KEPT = (
    "A fork is a chain of entries with two ends, as after storage was copied or put back. What is of one, or"
    " came too late, changes no balance here. It is kept, and goes to the hub with the next sync, where it is"
    " seen to that nobody's money is lost or counts twice: nothing to do on this terminal.\n"
)
_AGAIN = ". Copy the file once more and import it again: nothing counts twice"
_MISSING = (
    "No balance here counts what is missing. It comes with the hub's settlement, with another terminal that"
    " has it, or with a courier file of it.\n"
)


def tell_export(said: Json) -> str:
    """What was exported, for a person."""
    what = f"{_many(said['taps'], 'entry', 'entries')} in {_many(said['blocks'], 'block')}"
    told = f"{what} {'is' if said['taps'] == 1 else 'are'} in {said['file']}\n"
    if said["unsealed"]:
        why = _REVOKED if said["revoked"] else _PUT_BACK
        told += f"{said['unsealed']:,} TAPS ARE NOT IN IT: {why} They are kept here until then.\n"
    return told


def exported_all(said: Json) -> bool:
    """Whether the file has every tap that it should."""
    return not said["unsealed"]


def tell_import(said: Json) -> str:
    """What was imported and what was not, for a person."""
    new = f"{_many(said['new'], 'new block')} with {_many(said['deltas'], 'entry', 'entries')}"
    lines = [f"{new}, {said['known']:,} known already\n"]
    if said["settled"]:
        lines.append(
            f"{_many(said['settled'], 'block')} from before the hub's settlement, not kept here. Only the hub"
            " can tell whether it has the same: where a terminal's storage was put back or lost, import the"
            " file there too (farebox-hub ledger import FILE)\n"
        )
    if said["unusable"]:
        lines.append(f"the file could not be read to its end: {said['unusable']}{_AGAIN * said['damaged']}\n")
    lines += [_refusal(one) for one in said["refused"]]
    if any(one["kept"] for one in said["refused"]):
        lines.append(_KEPT)
    lines += [
        f"missing: {_numbers(one['first'], one['last'])} of {one['replica'][:8]}, held by the exporter\n"
        for one in said["missing"]
    ]
    if said["missing_more"]:
        lines.append(f"missing: {said['missing_more']:,} more such stretches, held by the exporter\n")
    if said["missing"]:
        lines.append(_MISSING)
    return "".join(lines)


def _refusal(one: Json) -> str:
    """Of what was refused for one reason: a line."""
    what = f"{_many(one['blocks'], 'block')} of {one['replica'][:8] or 'nobody known'}: {one['message']}\n"
    if not one["kept"]:
        return f"refused: {what}"
    return f"fork: {what}" if one["code"] == "fork_detected" else f"too late: {what}"


def imported_all(said: Json) -> bool:
    """Whether the file was read to its end and nothing in it was refused."""
    return not said["unusable"] and not said["refused"]


def _many(number: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 block", "12 blocks"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _numbers(first: int, last: int) -> str:
    return f"entry {first:,}" if first == last else f"entries {first:,} to {last:,}"
