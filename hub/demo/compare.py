"""What differs between what passengers were told and what the ledgers hold. Pure: values to sentences.

The balances are worked out here a second time from the hub's single facts, so that a ledger which adds up
wrongly is noticed even when all four add up wrongly in the same way.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

FARE = "fare"
OPENING = "opening"


@dataclass(frozen=True)
class Fact:
    """One delta as the hub has it; `kind` is the lower-case name of the ledger's kind."""

    replica: str
    seq: int
    card: str
    kind: str
    amount_minor: int


@dataclass(frozen=True)
class Witness:
    """What one terminal told the passengers: the accepted lines it printed, and how often it printed nothing.

    `accepted` counts (card, amount_minor) of each accepted line. `unanswered` counts, by card, the
    presentations that ended without any line because the terminal was killed: such a tap may be in the
    ledger or not.
    """

    terminal: str
    replica: str
    accepted: Counter[tuple[str, int]]
    unanswered: Counter[str]


@dataclass(frozen=True)
class LedgerView:
    """One ledger's own account of itself; balances in minor units by card."""

    name: str
    digest: str
    held: int
    balanced: bool
    balances: Mapping[str, int]


def differences(
    witnesses: Sequence[Witness], facts: Sequence[Fact], ledgers: Sequence[LedgerView]
) -> list[str]:
    """Every way in which the ledgers and the printed lines disagree, as sentences; empty when all is well."""
    return [
        *_repeated(facts),
        *_gaps(facts),
        *(line for witness in witnesses for line in _taps(witness, facts)),
        *_balances(facts, ledgers),
        *_agreement(ledgers),
    ]


def balances_of(facts: Iterable[Fact]) -> dict[str, int]:
    """Balance by card: the sum of all that is not an opening, and the largest opening once."""
    sums: defaultdict[str, int] = defaultdict(int)
    openings: defaultdict[str, int] = defaultdict(int)
    for fact in facts:
        if fact.kind == OPENING:
            openings[fact.card] = max(openings[fact.card], fact.amount_minor)
        else:
            sums[fact.card] += fact.amount_minor
    return {card: sums[card] + openings[card] for card in sums.keys() | openings.keys()}


def _repeated(facts: Sequence[Fact]) -> Iterator[str]:
    for (replica, seq), times in sorted(Counter((fact.replica, fact.seq) for fact in facts).items()):
        if times > 1:
            yield f"The hub lists delta {seq} of replica {replica[:8]} {times} times."


def _gaps(facts: Sequence[Fact]) -> Iterator[str]:
    seqs: defaultdict[str, set[int]] = defaultdict(set)
    for fact in facts:
        seqs[fact.replica].add(fact.seq)
    for replica, seen in sorted(seqs.items()):
        missing = sorted(set(range(1, max(seen) + 1)) - seen)
        if missing:
            yield f"The hub lacks {len(missing)} deltas of replica {replica[:8]}, the first is {missing[0]}."


def _taps(witness: Witness, facts: Sequence[Fact]) -> Iterator[str]:
    """Each accepted tap once in the hub, and nothing more than was accepted or went unanswered."""
    stored = Counter(
        (fact.card, -fact.amount_minor)
        for fact in facts
        if fact.replica == witness.replica and fact.kind == FARE
    )
    for (card, fare), times in sorted(witness.accepted.items()):
        if stored[card, fare] < times:
            yield (
                f"{witness.terminal} accepted {times} taps of card {card} at {fare}, "
                f"and the hub has {stored[card, fare]}: {times - stored[card, fare]} lost."
            )
    spare = Counter(card for card, _ in (stored - witness.accepted).elements())
    for card, times in sorted((spare - witness.unanswered).items()):
        yield f"The hub has {times} taps of card {card} by {witness.terminal} that nobody made."


def _balances(facts: Sequence[Fact], ledgers: Sequence[LedgerView]) -> Iterator[str]:
    expected = balances_of(facts)
    for ledger in ledgers:
        for card in sorted(expected.keys() | ledger.balances.keys()):
            says, should = ledger.balances.get(card, 0), expected.get(card, 0)
            if says != should:
                yield f"{ledger.name} says {says} for card {card}; the hub's deltas add up to {should}."


def _agreement(ledgers: Sequence[LedgerView]) -> Iterator[str]:
    for ledger in ledgers:
        if not ledger.balanced:
            yield f"The books of {ledger.name} do not balance."
        if ledger.held:
            yield f"{ledger.name} still holds {ledger.held} deltas that the hub has not settled."
    if len({ledger.digest for ledger in ledgers}) > 1:
        by_digest = ", ".join(f"{ledger.name} {ledger.digest[:12]}" for ledger in ledgers)
        yield f"The state digests differ: {by_digest}."
