"""Commands about the ledger as a whole: its backup, and courier files in and out."""

import argparse
import itertools
import os
from collections.abc import Callable
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any, Final

from hub import settings
from hub.cli_operate import Command
from hub.cli_text import Bar, ask_hub, local_time, money_text, say, table
from hub.control_client import download, unwritten, upload
from hub.daywords import silence
from hub.errors import FileTrouble, SetupError
from hub.evidence import SilentRow


def add(command: Command) -> None:
    """Put these commands into the parser."""
    backup = command("backup", _backup, "Copy the ledger, encrypted, while the hub runs.")
    backup.add_argument("file", type=Path, help="where to; it must not be there yet")
    ledger = command("ledger", _ledger, "Courier files in and out; what does not count, and what is missing.")
    ledger.add_argument("action", choices=["import", "export", *_ABOUT])
    ledger.add_argument(
        "file",
        type=Path,
        nargs="?",
        help="the courier file; with adopt: the hash of the block, with dismiss: the flag, as `forks` shows "
        "them; with give-up: the replica, as `waiting` shows it",
    )
    ledger.add_argument(
        "--others",
        action="store_true",
        help="with adopt: also every other block of the same author that is open",
    )


def what_waiting_means(rows: list[dict[str, Any]]) -> list[str]:
    """What missing entries mean for money and days, and what to do, line by line."""
    lines = ["No balance counts these yet. They come with any terminal or courier file that has them."]
    if any(row["own"] for row in rows):
        lines += [
            "Those of the hub are top-ups, refunds and adjustments that it booked before it was put back.",
            "Wait until all buses have been in before you book one of them again: else both count.",
        ]
    if not all(row["proven"] for row in rows):
        lines.append("Unproven is the word of another terminal alone: no day waits for it.")
    return lines


def _backup(options: argparse.Namespace) -> None:
    size = _save(options, "/backup", "Copying")
    say(f"The ledger is copied to {options.file} ({size / 1e6:,.1f} MB), encrypted with the hub's own key.")
    say("Keep the key with another copy, not with this one; hub/README.md says how to put both back.")


def _ledger(options: argparse.Namespace) -> None:
    if options.action in _ABOUT:
        _ABOUT[options.action](options)
        return
    if options.file is None:
        raise SetupError(f"Say which file: `farebox-hub ledger {options.action} FILE`.")
    if options.action == "export":
        size = _save(options, "/ledger/export", "Exporting")
        say(f"Everything the hub holds is in {options.file} ({size / 1e6:,.1f} MB).")
        return
    _tell(_import(options))


def _forks(options: argparse.Namespace) -> None:
    found, money = _every_fork(options), money_text(options)
    if not found["blocks"] and not found["flags"]:
        say("No block is in quarantine and no author is flagged.")
        return
    table(
        ["author", "entries", "amount", "why", "became", "block"],
        [
            [
                row["terminal"],
                f"{row['first_seq']}-{row['last_seq']}",
                money(row["amount_minor"]),
                "revoked" if row["revoked"] else "replaced" if row["replaced"] else "fork",
                row["resolution"] or "open",
                row["block"],
            ]
            for row in found["blocks"]
        ],
    )
    for flag in found["flags"]:
        say(f"{local_time(flag['at_ms'])}  {flag['terminal']}: {flag['sentence'].rstrip('.')};")
        say(f"  once seen to: farebox-hub ledger dismiss {flag['replica']}/{flag['code']}")


def _every_fork(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Blocks and flags of all pages."""
    every: dict[str, list[dict[str, Any]]] = {"blocks": [], "flags": []}
    for page in itertools.count(1):
        found = ask_hub(options, "GET", f"/ledger/forks?page={page}")
        for name, rows in every.items():
            rows += found[name]
        if not found["more"]:
            break
    return every


def _adopt(options: argparse.Namespace) -> None:
    if options.file is None:
        raise SetupError("Say which block: `farebox-hub ledger adopt BLOCK`, its hash as `forks` shows it.")
    asked = {"block": str(options.file), "others": options.others}
    done = ask_hub(options, "POST", "/ledger/adopt", asked)
    say(f"{done['entries']} entries that the ledger lacked are booked by the hub.")
    say("Should their terminal come after all and write them again, the hub takes its own back.")


def _dismiss(options: argparse.Namespace) -> None:
    if options.file is None:
        raise SetupError("Say which flag: `farebox-hub ledger dismiss FLAG`, as `forks` shows it.")
    replica, _, code = str(options.file).partition("/")
    ask_hub(options, "POST", "/ledger/dismiss", {"replica": replica, "code": code})
    say("The flag is taken off. No entry counts more or less for it; it comes back should it happen again.")


def _give_up(options: argparse.Namespace) -> None:
    if options.file is None:
        raise SetupError("Say whose: `farebox-hub ledger give-up REPLICA`, as `waiting` shows it.")
    ask_hub(options, "POST", "/ledger/give-up", {"replica": str(options.file)})
    say("No longer waited for. Should entries of it turn up after all, they are taken and count.")


def _waiting(options: argparse.Namespace) -> None:
    rows = ask_hub(options, "GET", "/ledger/waiting")
    silent = [SilentRow(**one) for one in ask_hub(options, "GET", "/ledger/silent")]
    if rows:
        _missing(rows)
    elif not silent:
        say("Nothing is missing: every entry that anybody has named is here.")
    for one in silent:
        say(f"{one.terminal}: {silence(one, local_time(one.heard_ms))},")
        say(f"  or you give it up: farebox-hub ledger give-up {one.replica}")


def _missing(rows: list[dict[str, Any]]) -> None:
    table(
        ["author", "entries", "named by", "", "since", "replica"],
        [
            [
                row["terminal"],
                f"{row['first_seq']}-{row['last_seq']}",
                row["source"],
                "" if row["proven"] else "unproven",
                local_time(row["since_ms"]),
                row["replica"],
            ]
            for row in rows
        ],
    )
    for line in what_waiting_means(rows):
        say(line)


_ABOUT: Final[dict[str, Callable[[argparse.Namespace], None]]] = {
    "forks": _forks,
    "adopt": _adopt,
    "dismiss": _dismiss,
    "waiting": _waiting,
    "give-up": _give_up,
}


def _import(options: argparse.Namespace) -> dict[str, Any]:
    place = settings.load(options.settings).control_socket
    bar = Bar("Importing")
    try:
        with options.file.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            done: dict[str, Any] = upload(place, "/ledger/import", file, size, bar.show)
            return done
    except OSError as error:
        raise FileTrouble(
            f"The courier file {options.file} cannot be read: {error.strerror}. Nothing was imported. Look "
            "whether the name is right and the stick is in."
        ) from error
    finally:
        bar.end()


def _tell(done: dict[str, Any]) -> None:
    """What an import did; FileTrouble when the file is damaged, after what was taken from it was said."""
    say(f"{done['blocks']} new blocks with {done['entries']} entries; {done['known']} were here before.")
    if done["refused"]:
        say(f"{done['refused']} were refused and change nothing:")
        for sentence in done["refusals"]:
            say(f"  {sentence}")
    for gap in done["missing"]:
        numbers = f"{gap['first_seq']} to {gap['last_seq']}"
        say(f"  missing of {gap['author']}: {numbers} (replica {gap['replica']})")
    if done["missing_more"]:
        say(f"  and of {done['missing_more']:,} more authors")
    if done["trouble"]:
        again = (
            " What is said above is in the ledger. Copy the file once more and import it again: "
            "nothing counts twice."
        )
        sentence = f"{done['trouble'][:1].upper()}{done['trouble'][1:]}."
        raise FileTrouble(sentence + again * done["damaged"])


def _save(options: argparse.Namespace, target: str, what: str) -> int:
    """Write the hub's answer to the file that was named; its size. Nothing is left of one that broke off."""
    place = settings.load(options.settings).control_socket
    bar = Bar(what)
    try:
        # For its owner alone: who rode where is in it.
        made = FileIO(options.file, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))
    except FileExistsError as error:
        raise FileTrouble(f"{options.file} is there already and was not touched. Name another.") from error
    except OSError as error:
        raise FileTrouble(
            f"{options.file} cannot be made: {error.strerror}. Look whether its directory is there and you "
            "may write there."
        ) from error
    try:
        with BufferedWriter(made) as file:
            size = download(place, target, file, bar.show)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        _remove(options.file)
        if isinstance(error, OSError):
            raise unwritten(options.file, error) from error
        raise
    finally:
        bar.end()
    return size


def _remove(unfinished: Path) -> None:
    try:
        unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise FileTrouble(
            f"{unfinished} is not complete and cannot be removed: {error.strerror}. Delete it yourself, and "
            "run the command again. The ledger is unchanged and nothing in it is lost."
        ) from error
