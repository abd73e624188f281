"""The hub's balances: changed with every merge, aggregated per card, numbered by position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, case, func, not_, select

from crdt.columns import Columns
from crdt.errors import MisuseError
from crdt.facts import NEW_CARD, Books, CardId, CardState, Kind
from crdt.settlement import HOTLISTED, OVERDRAWN, UNMET, CardRow
from crdt.store.hub_schema import CARD, HUB, LISTED, RUN
from crdt.store.projection import remaining_openings, still_mentioned
from crdt.store.sql import Bulk, Lookup, replacing, total
from crdt.store.statement import Statement

NO_FLOOR: Final = -(2**62)  # no balance is below it

_PUT: Final = replacing(CARD)
ROW: Final = (CARD.c.card, CARD.c.sum_minor, CARD.c.opening_minor, CARD.c.flags, CARD.c.number)
_LOOKUP: Final = Lookup(CARD, "card", [column.name for column in ROW])
NOTHING: Final = CARD.c.flags == UNMET  # nothing is left to say of the card

CardValues = tuple[CardId, int, int, int, int, int]  # a row of the table `card`


@dataclass(slots=True)
class Gain:
    """What some blocks add to the balances, card by card."""

    sums: defaultdict[CardId, int] = field(default_factory=lambda: defaultdict(int))
    openings: dict[CardId, int] = field(default_factory=dict)  # the largest of each card
    deltas: int = 0
    deltas_minor: int = 0
    openings_minor: int = 0  # of all openings, also the beaten ones

    def add(self, facts: Columns) -> None:
        """Add the facts of a block. The inner loop of every merge: one dictionary step a delta."""
        sums = self.sums
        amounts = [0 if kind is Kind.OPENING else amount for kind, amount in facts.money]
        for card, amount in zip(facts.cards.values(), map(amounts.__getitem__, facts.index), strict=True):
            sums[card] += amount
        self.deltas += len(facts.index)
        self.deltas_minor += facts.total_minor()
        opened = [kind is Kind.OPENING for kind, _ in facts.money]
        if any(opened):
            self._add_openings(facts, opened)

    def _add_openings(self, facts: Columns, opened: list[bool]) -> None:
        self.openings_minor += facts.openings_minor()
        rows = zip(facts.cards.values(), facts.index, strict=True)
        for card, entry in compress(rows, [opened[entry] for entry in facts.index]):
            amount = facts.money[entry][1]
            self.openings[card] = max(self.openings.get(card, 0), amount)


@dataclass(frozen=True, slots=True)
class Standing:
    """The hub's row: which series, and how much has been merged."""

    series: bytes
    position: int
    deltas: int
    deltas_minor: int
    openings_minor: int
    numbered: int  # the last number given to a card
    floor_minor: int  # below it, a card is overdrawn


_STANDING: Final = Statement(select(*(HUB.c[name] for name in Standing.__dataclass_fields__)))
_COUNTERS: Final = ("position", "deltas", "deltas_minor", "openings_minor", "projected", "numbered")
_BEGIN: Final = Bulk(HUB, ("id", "fleet", "series", "floor_minor", *_COUNTERS))
_FLAGS: Final = Statement(select(CARD.c.flags).where(CARD.c.card == bindparam("card")))
_SUMS: Final = Statement(select(total(CARD.c.sum_minor), total(CARD.c.opening_minor)))
_BEGIN_RUN: Final = Bulk(RUN, ("first", "before"))
_END_RUNS: Final = Statement(RUN.delete().where(RUN.c.first > bindparam("last")))
_BEFORE: Final = Statement(
    select(RUN.c.before).where(RUN.c.first > bindparam("position")).order_by(RUN.c.first).limit(1)
)
_FIRST: Final = select(func.coalesce(func.max(RUN.c.first), 0)).scalar_subquery()
_MOVE_ON: Final = Statement(
    HUB.update().values(position=case((HUB.c.position < _FIRST, _FIRST), else_=HUB.c.position + 1))
)
_CARD: Final = Statement(select(*ROW).where(CARD.c.card == bindparam("card"), not_(NOTHING)))
_POSITION: Final = Statement(select(HUB.c.position))
_ADD: Final = Statement(
    HUB.update().values(
        deltas=HUB.c.deltas + bindparam("more", type_=BigInteger),
        deltas_minor=HUB.c.deltas_minor + bindparam("more_minor", type_=BigInteger),
        openings_minor=HUB.c.openings_minor + bindparam("more_openings_minor", type_=BigInteger),
        numbered=bindparam("last", type_=BigInteger),
    )
)


def read_standing(connection: Connection) -> Standing:
    """The hub's standing in this snapshot. Raises MisuseError where none has begun."""
    row = _STANDING.row(connection)
    if row is None:
        raise MisuseError("this ledger is no hub's yet")
    return Standing(*row)


def begin_standing(connection: Connection, fleet: bytes, series: bytes) -> None:
    """The row of a new hub."""
    _BEGIN.run(connection, [(1, fleet, series, NO_FLOOR, *(0 for _ in _COUNTERS))])


def begin_run(connection: Connection, distance: int) -> None:
    """Let the next position be `distance` further than the one after the last; for each start of a hub.

    A database restored from a backup does not know which positions it made after the backup. At a random
    distance it makes none of them again, so a terminal that comes back with one is noticed (`is_made`): what
    it has installed is not what this hub would have said, and increments would leave it wrong for good.
    """
    last = read_standing(connection).position
    _END_RUNS.run(connection, last=last)  # those that made none
    _BEGIN_RUN.run(connection, [(last + 1 + distance, last)])


def is_made(connection: Connection, position: int, last: int) -> bool:
    """Whether this database made the position: what was said of it still holds. `last`: the newest."""
    end: int | None = _BEFORE.value(connection, position=position)
    return position <= (last if end is None else end)


def next_position(connection: Connection) -> int:
    """Number the change that this transaction makes.

    Counted in the hub's one row, so that positions become visible in their order: whoever takes the next one
    waits for this transaction to end.
    """
    _MOVE_ON.run(connection)
    return int(_POSITION.value(connection))


class Met(NamedTuple):
    """Cards that were given numbers: `first`, and on from there."""

    first: int
    cards: Sequence[CardId]


def add_gain(connection: Connection, gain: Gain, position: int) -> Met:
    """Add to the balances and totals what some blocks gained, as the change at `position`.

    Returns the cards that were met for the first time; they are numbered in the order of their first facts.
    """
    standing = read_standing(connection)
    stored = _stored(connection, gain.sums)
    numbered = standing.numbered
    rows: list[CardValues] = []
    met: list[CardId] = []
    for card, gained_minor in gain.sums.items():
        sum_minor = gained_minor + stored.sums.get(card, 0)
        opening_minor = max(stored.openings.get(card, 0), gain.openings.get(card, 0))
        number = stored.numbers.get(card, 0)
        if not number:
            met.append(card)
            number = numbered + len(met)
        flags = judged(stored.flags.get(card, 0) & HOTLISTED, sum_minor + opening_minor, standing.floor_minor)
        rows.append((card, sum_minor, opening_minor, flags, position, number))
    put_cards(connection, rows)
    _add(connection, gain, 1, numbered + len(met))
    return Met(numbered + 1, met)


def take_back(connection: Connection, loss: Gain, position: int) -> None:
    """Undo the gain of blocks that left the record, as the change at `position`.

    The history has to be that of what remains: the largest opening that is left counts, and a card that
    nothing mentions any more is one that nobody has met, though its number stays its own.
    """
    standing = read_standing(connection)
    stored = _stored(connection, loss.sums)
    # Of a card with a larger opening than any that has left, that stays, and its history is not read.
    lost = {card for card, minor in loss.openings.items() if minor == stored.openings.get(card, 0)}
    openings = remaining_openings(connection, lost)
    met = still_mentioned(connection, list(loss.sums))
    rows: list[CardValues] = []
    for card, lost_minor in loss.sums.items():
        sum_minor, number = stored.sums[card] - lost_minor, stored.numbers[card]
        left = openings if card in lost else stored.openings
        opening_minor = left.get(card, 0)
        flags = judged(stored.flags.get(card, 0) & HOTLISTED, sum_minor + opening_minor, standing.floor_minor)
        rows.append(
            (card, sum_minor, opening_minor, flags if card in met else flags | UNMET, position, number)
        )
    put_cards(connection, rows)
    _add(connection, loss, -1, standing.numbered)


def _add(connection: Connection, gain: Gain, sign: int, numbered: int) -> None:
    """Change the totals. `numbered`: the last number of a card."""
    _ADD.run(
        connection,
        more=sign * gain.deltas,
        more_minor=sign * gain.deltas_minor,
        more_openings_minor=sign * gain.openings_minor,
        last=numbered,
    )


def judged(flags: int, balance_minor: int, floor_minor: int) -> int:
    """These flags of a card, with OVERDRAWN exactly when its balance is below the floor."""
    return flags | OVERDRAWN if balance_minor < floor_minor else flags & ~OVERDRAWN


def put_cards(connection: Connection, rows: Iterable[CardValues]) -> None:
    """Put these rows in the place of those the cards have."""
    _PUT.run(connection, sorted(rows))


@dataclass(slots=True)
class _Stored:
    """Rows of cards as plain numbers, zeros left out where they are common: tens of thousands of tuples at
    once would cost more in garbage collection than reading them does."""

    sums: dict[bytes, int] = field(default_factory=dict)
    openings: dict[bytes, int] = field(default_factory=dict)
    flags: dict[bytes, int] = field(default_factory=dict)
    numbers: dict[bytes, int] = field(default_factory=dict)


def _stored(connection: Connection, cards: Iterable[CardId]) -> _Stored:
    """The rows of these cards; those that have none are left out."""
    found = _Stored()
    in_order = sorted(cards)  # so that each page is read and decrypted once
    for card, sum_minor, opening_minor, flags, number in _LOOKUP.run(connection, in_order):
        found.sums[card] = sum_minor
        found.numbers[card] = number
        if opening_minor:
            found.openings[card] = opening_minor
        if flags:
            found.flags[card] = flags
    return found


def read_card(connection: Connection, card: CardId) -> CardRow | None:
    """A card's row; None for a card that nobody has met and that is not hotlisted."""
    row = _CARD.row(connection, card=card)
    return None if row is None else CardRow(*row)


def cards_after(connection: Connection, after: bytes, limit: int) -> list[CardRow]:
    """Cards by ascending id, after `after`."""
    query = select(*ROW).where(CARD.c.card > after, not_(NOTHING)).order_by(CARD.c.card).limit(limit)
    return [CardRow(*row) for row in connection.execute(query)]


def set_hotlisted(connection: Connection, card: CardId, hotlisted: bool) -> bool:
    """Put a card on the hotlist or take it off, as a change with its own position; False when it was so."""
    stored: int | None = _FLAGS.value(connection, card=card)
    before = UNMET if stored is None else stored
    flags = before | HOTLISTED if hotlisted else before & ~HOTLISTED
    if flags == before:
        return False
    position = next_position(connection)
    if stored is None:
        put_cards(connection, [(card, 0, 0, flags, position, 0)])
        connection.execute(LISTED.insert().values(card=card, since=position))
    else:
        here = CARD.c.card == card
        connection.execute(CARD.update().where(here).values(flags=flags, position=position))
    return True


def read_books(connection: Connection) -> Books:
    """What was merged against what every card has."""
    (sum_minor, opening_minor), *_ = _SUMS.rows(connection)
    standing = read_standing(connection)
    voided = standing.openings_minor - int(opening_minor)
    return Books(standing.deltas_minor, int(sum_minor) + int(opening_minor), voided)


def count_cards(connection: Connection) -> int:
    """How many cards the ledger has met."""
    query = select(func.count()).select_from(CARD).where(CARD.c.flags.bitwise_and(UNMET) == 0)
    return int(connection.execute(query).scalar_one())


def states_by_id(connection: Connection) -> Iterable[tuple[CardId, CardState]]:
    """Every card's state by ascending id; streamed."""
    query = select(CARD.c.card, CARD.c.sum_minor, CARD.c.opening_minor).order_by(CARD.c.card)
    with connection.execute(query.execution_options(yield_per=1000)) as rows:
        for card, sum_minor, opening_minor in rows:
            yield card, CardState(sum_minor, opening_minor)


def state_of(row: CardRow | None) -> CardState:
    """The sums of a card's row, or those of a new card."""
    return NEW_CARD if row is None else row.state
