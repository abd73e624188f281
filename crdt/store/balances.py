"""The hub's balances: changed with every merge, aggregated per card, numbered by position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

from sqlalchemy import Connection, and_, case, func, not_, select

from crdt.columns import Columns
from crdt.facts import NEW_CARD, Books, CardId, CardState, Kind, ReplicaId
from crdt.frontier import Head
from crdt.settlement import HOTLISTED, START, CardRow, Cursor, beginning
from crdt.store.blocks import heads_of
from crdt.store.schema import CARD, HEAD, HUB, LISTED, RUN
from crdt.store.sql import ADDED, GIVEN, LARGER, Bulk, beyond, total

UNMET: Final = 2  # in CARD.flags, and nowhere else: no fact mentions the card, it was only hotlisted once

_ADD: Final = Bulk(
    CARD,
    ("card", "sum_minor", "opening_minor", "position"),
    {
        "sum_minor": ADDED,
        "opening_minor": LARGER,
        "position": GIVEN,
        "flags": f"{{old}} & {HOTLISTED}",  # it stays, UNMET goes
    },
)
_ROW: Final = (
    CARD.c.card,
    CARD.c.sum_minor,
    CARD.c.opening_minor,
    CARD.c.flags.bitwise_and(HOTLISTED).label("flags"),
)
_NOTHING: Final = CARD.c.flags == UNMET  # nothing is left to say of the card


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


def read_standing(connection: Connection) -> Standing:
    """The hub's standing in this snapshot."""
    columns = (HUB.c.series, HUB.c.position, HUB.c.deltas, HUB.c.deltas_minor, HUB.c.openings_minor)
    return Standing(*connection.execute(select(*columns)).one())


def begin_standing(connection: Connection, fleet: bytes, series: bytes) -> None:
    """The row of a new hub."""
    zero = dict.fromkeys(("position", "deltas", "deltas_minor", "openings_minor", "projected"), 0)
    connection.execute(HUB.insert().values(id=1, fleet=fleet, series=series, **zero))


def begin_run(connection: Connection, distance: int) -> None:
    """Let the next position be `distance` further than the one after the last; for each start of a hub.

    A database restored from a backup does not know which positions it made after the backup. At a random
    distance it makes none of them again, so a terminal that comes back with one is noticed (`is_made`): what
    it has installed is not what this hub would have said, and increments would leave it wrong for good.
    """
    last = read_standing(connection).position
    connection.execute(RUN.delete().where(RUN.c.first > last))  # a run that made none
    connection.execute(RUN.insert().values(first=last + 1 + distance, before=last))


def is_made(connection: Connection, position: int, last: int) -> bool:
    """Whether this database made the position: what was said of it still holds. `last`: the newest."""
    later = select(RUN.c.before).where(RUN.c.first > position).order_by(RUN.c.first).limit(1)
    end: int | None = connection.execute(later).scalar_one_or_none()
    return position <= (last if end is None else end)


def next_position(connection: Connection) -> int:
    """Number the change that this transaction makes.

    Counted in the hub's one row, so that positions become visible in their order: whoever takes the next one
    waits for this transaction to end.
    """
    first = select(func.coalesce(func.max(RUN.c.first), 0)).scalar_subquery()
    following = case((HUB.c.position < first, first), else_=HUB.c.position + 1)
    connection.execute(HUB.update().values(position=following))
    return int(connection.execute(select(HUB.c.position)).scalar_one())


def add_gain(connection: Connection, gain: Gain, position: int) -> None:
    """Add to the balances and totals what some blocks gained, as the change at `position`."""
    openings = gain.openings
    rows = [(card, minor, openings.get(card, 0), position) for card, minor in sorted(gain.sums.items())]
    _ADD.run(connection, rows)
    connection.execute(
        HUB.update().values(
            deltas=HUB.c.deltas + gain.deltas,
            deltas_minor=HUB.c.deltas_minor + gain.deltas_minor,
            openings_minor=HUB.c.openings_minor + gain.openings_minor,
        )
    )


def read_card(connection: Connection, card: CardId) -> CardRow | None:
    """A card's row; None for a card that nobody has met and that is not hotlisted."""
    row = connection.execute(select(*_ROW).where(CARD.c.card == card, not_(_NOTHING))).one_or_none()
    return None if row is None else CardRow(*row)


def cards_after(connection: Connection, after: bytes, limit: int) -> list[CardRow]:
    """Cards by ascending id, after `after`."""
    query = select(*_ROW).where(CARD.c.card > after, not_(_NOTHING)).order_by(CARD.c.card).limit(limit)
    return [CardRow(*row) for row in connection.execute(query)]


def set_flags(connection: Connection, card: CardId, flags: int) -> bool:
    """Set a card's flags, as a change with a position of its own; False when they are so already."""
    stored: int | None = connection.execute(
        select(CARD.c.flags).where(CARD.c.card == card)
    ).scalar_one_or_none()
    unmet = UNMET if stored is None else stored & UNMET
    if flags == (stored or 0) & HOTLISTED:
        return False
    position = next_position(connection)
    change = {"flags": flags | unmet, "position": position}
    if stored is None:
        connection.execute(CARD.insert().values(card=card, sum_minor=0, opening_minor=0, **change))
        connection.execute(LISTED.insert().values(card=card, since=position))
    else:
        connection.execute(CARD.update().where(CARD.c.card == card).values(**change))
    return True


def read_books(connection: Connection) -> Books:
    """What was merged against what every card has."""
    sums = select(total(CARD.c.sum_minor), total(CARD.c.opening_minor))
    sum_minor, opening_minor = connection.execute(sums).one()
    standing = read_standing(connection)
    voided = standing.openings_minor - int(opening_minor)
    return Books(standing.deltas_minor, int(sum_minor) + int(opening_minor), voided)


def count_cards(connection: Connection) -> int:
    """How many cards the ledger has met."""
    query = select(func.count()).select_from(CARD).where(CARD.c.flags < UNMET)
    return int(connection.execute(query).scalar_one())


def states_by_id(connection: Connection) -> Iterable[tuple[CardId, CardState]]:
    """Every card's state by ascending id; streamed."""
    query = select(CARD.c.card, CARD.c.sum_minor, CARD.c.opening_minor).order_by(CARD.c.card)
    with connection.execute(query.execution_options(yield_per=1000)) as rows:
        for card, sum_minor, opening_minor in rows:
            yield card, CardState(sum_minor, opening_minor)


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of a settlement page."""

    series: bytes
    base: int
    after: Cursor
    until: Cursor
    rows: list[CardRow]
    position: int
    heads: dict[ReplicaId, Head] | None  # on the final page


def answer_pull(connection: Connection, series: bytes, base: int, after: Cursor, limit: int) -> Answer:
    """The page for a terminal that has `base` of `series` installed and everything up to `after` staged.

    One that this hub cannot continue (another series, or positions it has not made) begins a full load.
    """
    standing = read_standing(connection)
    reached = base if after == beginning(base) else after.position
    if series != standing.series or not all(
        is_made(connection, position, standing.position) for position in {base, reached}
    ):
        base, after = 0, START
    # A row without facts and flag takes a card off the hotlist; to whom it was never on it says nothing.
    never_listed = select(LISTED.c.card).where(LISTED.c.since > max(base, after.position))
    query = select(CARD.c.position, *_ROW).where(
        beyond(connection, (CARD.c.position, CARD.c.card), after),
        not_(and_(_NOTHING, CARD.c.card.in_(never_listed))),
    )
    found = connection.execute(query.order_by(CARD.c.position, CARD.c.card).limit(limit + 1)).all()
    rows = found[:limit]
    return Answer(
        series=standing.series,
        base=base,
        after=after,
        until=Cursor(rows[-1][0], rows[-1][1]) if rows else after,
        rows=[CardRow(*row[1:]) for row in rows],
        position=standing.position,
        heads=heads_since(connection, base) if len(found) <= limit else None,
    )


def heads_since(connection: Connection, base: int) -> dict[ReplicaId, Head]:
    """The heads that moved after position `base`."""
    if base == 0:
        return heads_of(connection)
    query = select(HEAD.c.replica, HEAD.c.seq, HEAD.c.hash).where(HEAD.c.position > base)
    return {ReplicaId(replica): Head(seq, hash_) for replica, seq, hash_ in connection.execute(query)}


def state_of(row: CardRow | None) -> CardState:
    """The sums of a card's row, or those of a new card."""
    return NEW_CARD if row is None else row.state
