"""What the ledger is about: cards, deltas, and what deltas add up to. Values only.

Money is an `int` of minor units (cents), times are `int` milliseconds since 1970-01-01T00:00Z by the clock
of whoever wrote them. A clock never decides anything here.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, NewType

from crdt.errors import MisuseError

ReplicaId = NewType("ReplicaId", bytes)  # 16 bytes: SHA-256(public key)[:16]
FleetId = NewType("FleetId", bytes)  # 16 bytes: SHA-256(fleet public key)[:16]
TerminalId = NewType("TerminalId", bytes)  # 16 bytes, chosen at enrolment, survives re-pairing
CardId = NewType("CardId", bytes)  # 4..16 bytes: 4, 7, 10 are ISO/IEC 14443-3 UIDs, 16 is a virtual card

ID_BYTES: Final = 16
MIN_CARD_BYTES: Final = 4
MAX_CARD_BYTES: Final = 16
MAX_CARD_NUMBER: Final = 2**40 - 1  # cards are numbered from 1 by the hub that meets them
MAX_AMOUNT_MINOR: Final = 2**40  # absolute, per delta: four million of them still fit a signed 64-bit sum
MAX_ALLOWANCE_MINOR: Final = 2**62  # an author's credits in all; as good as none: no chain comes near it
MAX_SEQ: Final = 2**48 - 1
MAX_AT_MS: Final = 2**48 - 1
MAX_TEXT_BYTES: Final = 64  # UTF-8, every name and context string
MAX_CLOCK_EPOCH: Final = 2**32 - 1
MAX_CLOCK_ERROR_MS: Final = 2**48 - 1


class Kind(IntEnum):
    """What a delta is. The sign of its amount is part of the meaning; see `amount_fits`."""

    FARE = 1  # <= 0; zero is a free ride
    TOPUP = 2  # > 0
    OPENING = 3  # >= 0; only the largest of a card's openings counts
    REFUND = 4  # > 0
    ADJUSTMENT = 5  # != 0, by an operator
    REVERSAL = 6  # >= 0: a fare that counts otherwise is taken back; zero: a free ride
    RETRACTION = 7  # != 0: a credit or correction that counts otherwise is taken back
    DUPLICATE = 8  # >= 0: a fare that another author says as well is taken back; zero: a free ride
    REINSTATED = 9  # <= 0: a fare that was taken back so counts again; zero: a free ride


HUBS_OWN: Final = frozenset({Kind.DUPLICATE, Kind.REINSTATED})
"""What each hub may write, and nobody else; no certificate names them."""
CERTIFIED: Final = frozenset(Kind) - HUBS_OWN
"""What a certificate may let its author write."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def amount_fits(kind: Kind, amount_minor: int) -> bool:
    """Whether a delta of this kind may carry this amount: its sign rule, and |amount| <= MAX_AMOUNT_MINOR."""
    if not -MAX_AMOUNT_MINOR <= amount_minor <= MAX_AMOUNT_MINOR:
        return False
    if kind in (Kind.FARE, Kind.REINSTATED):
        return amount_minor <= 0
    if kind in (Kind.OPENING, Kind.REVERSAL, Kind.DUPLICATE):
        return amount_minor >= 0
    return amount_minor != 0 if kind in (Kind.ADJUSTMENT, Kind.RETRACTION) else amount_minor > 0


def text_fits(text: str) -> bool:
    """Whether a name or context string is fit to store and to show.

    At most MAX_TEXT_BYTES of UTF-8 and no control characters (C0, DEL, C1). The rule is spelled out because
    `str.isprintable` changes with the Unicode version, and every replica must judge alike.
    """
    if _CONTROL.search(text):
        return False
    try:
        return len(text.encode()) <= MAX_TEXT_BYTES
    except UnicodeEncodeError:
        return False


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise MisuseError(sentence)


def _is_int(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_bytes(value: object, low: int, high: int) -> bool:
    return type(value) is bytes and low <= len(value) <= high


@dataclass(frozen=True, slots=True)
class Context:
    """Where and on which clock a delta was made. For fares and reports; merging never looks at it.

    `clock_epoch` counts how often the terminal's clock was set; `clock_error_ms` is the estimated error
    then.
    """

    route: str = ""
    trip: str = ""
    stop: str = ""
    clock_epoch: int = 0
    clock_error_ms: int = 0

    def __post_init__(self) -> None:
        """Raise MisuseError unless the strings and numbers fit."""
        if not (text_fits(self.route) and text_fits(self.trip) and text_fits(self.stop)):
            raise MisuseError("route, trip and stop have at most 64 bytes and no control characters")
        _require(_is_int(self.clock_epoch, 0, MAX_CLOCK_EPOCH), "clock_epoch must be 32 bits")
        _require(_is_int(self.clock_error_ms, 0, MAX_CLOCK_ERROR_MS), "clock_error_ms must be 48 bits")


NO_CONTEXT: Final = Context()


@dataclass(frozen=True, slots=True)
class Delta:
    """One ledger fact: `replica` wrote, as its `seq`-th fact (from 1), `amount_minor` on `card`."""

    replica: ReplicaId
    seq: int
    card: CardId
    kind: Kind
    amount_minor: int
    at_ms: int
    context: Context = NO_CONTEXT

    def __post_init__(self) -> None:
        """Raise MisuseError unless every field is in range; money and times are never float or bool."""
        _require(_is_bytes(self.replica, ID_BYTES, ID_BYTES), "a replica id has 16 bytes")
        _require(_is_int(self.seq, 1, MAX_SEQ), "a sequence number is an integer from 1 to 2**48 - 1")
        check_card(self.card)
        _check_amount(self.kind, self.amount_minor)
        check_time(self.at_ms)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a decision wants written on a card. The ledger adds the replica, the number and the time."""

    kind: Kind
    amount_minor: int

    def __post_init__(self) -> None:
        """Raise MisuseError unless the amount suits the kind."""
        _check_amount(self.kind, self.amount_minor)


def check_card(card: CardId) -> None:
    """Raise MisuseError unless `card` is 4 to 16 bytes."""
    if type(card) is not bytes or not MIN_CARD_BYTES <= len(card) <= MAX_CARD_BYTES:
        raise MisuseError("a card id has 4 to 16 bytes")


def check_time(at_ms: int) -> None:
    """Raise MisuseError unless `at_ms` is a time that a delta may have."""
    _require(_is_int(at_ms, 0, MAX_AT_MS), "a time is an integer from 0 to 2**48 - 1, in ms")


class CardState(NamedTuple):
    """What a set of deltas adds up to for one card.

    The opening rule: a card's balance is the sum of its other deltas plus the *largest* of its openings, so
    two offline buses that both meet a new card give it one opening balance. The smaller ones are voided.
    """

    sum_minor: int = 0  # all deltas that are not openings
    opening_minor: int = 0  # the largest opening, 0 when there is none

    @property
    def balance_minor(self) -> int:
        """The card's balance."""
        return self.sum_minor + self.opening_minor

    def plus(self, kind: Kind, amount_minor: int) -> "CardState":
        """The state after one more delta."""
        if kind is Kind.OPENING:
            return CardState(self.sum_minor, max(self.opening_minor, amount_minor))
        return CardState(self.sum_minor + amount_minor, self.opening_minor)

    def combined(self, other: "CardState") -> "CardState":
        """The state of two *disjoint* sets of deltas together: commutative, associative, not idempotent."""
        return CardState(self.sum_minor + other.sum_minor, max(self.opening_minor, other.opening_minor))


NEW_CARD: Final = CardState()


class Books(NamedTuple):
    """The proof that no money is made or lost: `deltas_minor == balances_minor + voided_minor`, always."""

    deltas_minor: int  # the sum of every delta, openings included
    balances_minor: int  # the sum of every card's balance
    voided_minor: int  # openings that lost to a larger one of the same card

    @property
    def balance(self) -> bool:
        """Whether the books balance."""
        return self.deltas_minor == self.balances_minor + self.voided_minor


class CardView(NamedTuple):
    """What a ledger believes of a card at one instant; what a fare decision is made on."""

    card: CardId
    known: bool  # whether any delta or settlement mentions the card
    balance_minor: int
    hotlisted: bool
    last_fare_at_ms: int | None  # of this ledger's own and held fares, for the passback rule
    until_paid: bool = False  # whether it is hotlisted only because it is overdrawn, and by nobody's choice


def _check_amount(kind: Kind, amount_minor: int) -> None:
    """Raise MisuseError unless `amount_minor` is an int that suits `kind`."""
    _require(type(kind) is Kind, "a delta's kind is a Kind")
    if type(amount_minor) is not int or not amount_fits(kind, amount_minor):
        raise MisuseError(f"the amount {amount_minor!r} does not suit the kind {kind!r}")
