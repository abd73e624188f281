"""Settlement pages for a large fleet: many terminals are given the same ones, made once from memory.

Every terminal is to hear of every card that changes, so what a hub says grows with the square of its fleet:
10,000 terminals that tap twice a minute each miss 6,700 cards between two exchanges, and 500 of them ask in a
second. An edition is what changed lately, as of one instant, in memory. While making pages takes little time
every pull is answered as of its own instant. When it takes more, an edition stays for some seconds, and those
who missed the same are given the same page.

What is given is what the tables would say at the edition's position, so it is never wrong, but at most
MAX_AGE_S old. Whatever cannot be continued from memory is read from the tables.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Connection, Dialect, Select, bindparam, func, select

from crdt.cursor import Cursor, beginning
from crdt.facts import CardId, ReplicaId
from crdt.frontier import Head
from crdt.settlement import UNMET, CardRow, Page
from crdt.store.balances import read_standing
from crdt.store.hub_schema import CARD, HISTORY
from crdt.store.paging import Answer, answer_pull, is_continued
from crdt.store.recent import Changed, Recent
from crdt.store.schema import HEAD
from crdt.store.sql import beyond
from crdt.store.statement import Rows, Statement

MAX_AGE_S: Final = 5.0  # of an edition that is still given
SHARE: Final = 0.1  # of a core, for making pages; when it takes more they are shared
BURST_S: Final = 0.1  # of CPU time that may be spent at once before that
SHARING_S: Final = 60.0  # how long they are shared then: until those who have seldom asked have asked, too
MAX_ROWS: Final = (
    50_000  # cards of an edition, some minutes of a large fleet; who missed more reads the tables
)
MAX_INSTANTS: Final = 4096  # of which the end of the history is remembered: an hour and more
ALL_INSTANTS: Final = 64  # the newest, of which each is remembered
INSTANT_S: Final = 1.0  # between two of the others, at least
MAX_PAGES: Final = 256  # kept of one edition

_PLACE: Final = (CARD.c.position, CARD.c.card)
_ROW: Final = (*_PLACE, CARD.c.sum_minor, CARD.c.opening_minor, CARD.c.flags, CARD.c.number)


def _after(dialect: Dialect) -> Select[Any]:
    given = (bindparam("position", type_=BigInteger), bindparam("card", type_=CARD.c.card.type))
    here = beyond(dialect, _PLACE, given)
    return select(*_ROW).where(here).order_by(*_PLACE).limit(bindparam("limit", type_=BigInteger))


_AFTER: Final = Statement(_after)
_NEWEST: Final = Statement(
    select(*_ROW).order_by(*(column.desc() for column in _PLACE)).limit(bindparam("limit", type_=BigInteger))
)
_END: Final = Statement(select(func.coalesce(func.max(HISTORY.c.id), 0)))
_HEADS: Final = Statement(
    select(HEAD.c.position, HEAD.c.replica, HEAD.c.seq, HEAD.c.hash)
    .where(HEAD.c.position > bindparam("after"))
    .order_by(HEAD.c.position, HEAD.c.replica)
)

Seal = Callable[[Answer], Page]
NamedHead = tuple[ReplicaId, Head]


class PagePull(NamedTuple):
    """What somebody asks for of the settlement."""

    series: bytes
    base: int
    after: Cursor
    limit: int  # most rows of each kind


class Instant(NamedTuple):
    """The settlement at one moment, the last that it was seen to be the newest. `last_fact`: of the history
    then, which it includes."""

    position: int
    last_fact: int
    at_s: float


class Installed(NamedTuple):
    """What somebody knows who has installed a settlement."""

    last_fact: int  # of the history
    age_s: float  # since it was seen to be the newest


@dataclass(frozen=True, slots=True)
class Edition:
    """The cards and heads that changed after position `oldest`, as they are at `position`."""

    series: bytes
    oldest: int
    position: int
    made_s: float
    cards: Recent[CardId, CardRow]
    heads: Recent[ReplicaId, NamedHead]
    last_fact: int  # the last row of the history then
    unmet: int  # the last position of a card of which nothing is left to say; not everybody is told of those
    pages: dict[PagePull, Page] = field(default_factory=dict)

    def continues(self, pull: PagePull) -> bool:
        """Whether it holds everything that this pull is to be answered with."""
        series, base, after, _ = pull
        here = series == self.series and self.oldest <= base <= self.position and base > self.unmet
        begun = after.place == beginning(base) or base < after.position
        return here and begun and after.seen <= self.position

    def answer(self, pull: PagePull) -> Answer:
        """As `answer_pull` at the edition's position."""
        series, base, after, limit = pull
        both = self.cards.places, self.heads.places
        begins = [bisect_right(places, after) for places in both]
        ends = [
            places[begin + limit - 1]
            for places, begin in zip(both, begins, strict=True)
            if len(places) - begin > limit
        ]
        until = min(ends, default=Cursor(self.position + 1))
        rows, heads = (
            slice(begin, bisect_right(places, until)) for places, begin in zip(both, begins, strict=True)
        )
        return Answer(
            series=series,
            base=base,
            after=after,
            until=max([after, *both[0][rows][-1:], *both[1][heads][-1:]]),
            rows=self.cards.values[rows],
            position=self.position,
            heads=dict(self.heads.values[heads]),
            final=not ends,
        )


class Editions:
    """The settlement pages of a hub. `known` is for any thread and never waits; `page` is for a reader's."""

    def __init__(
        self,
        seal: Seal,
        *,
        shared: bool,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """`shared`: other processes may change the ledger too. `clock`: seconds that only grow. `cpu_clock`:
        those that the calling thread has worked."""
        self._seal = seal
        self._shared = shared
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._mutex = threading.Lock()
        self._edition: Edition | None = None
        self._told = -1
        self._instants: tuple[Instant, ...] = ()  # of ascending positions
        self._spent_s = 0.0
        self._counted_s = clock()
        self._sharing_until_s = self._counted_s

    def changed(self, position: int) -> None:
        """This process made the change at this position (0: none moved); told on its writer's thread."""
        self._told = max(self._told, position)

    def known(self, pull: PagePull) -> Page | None:
        """The page, if it is there and may still be given; costs nothing."""
        edition = self._edition
        if edition is None or not self._is_current(edition):
            return None
        return edition.pages.get(pull)

    def installed(self, position: int) -> Installed | None:
        """What is known to who has the settlement of this position, or a little less; None where it is older
        than what is remembered. Costs nothing."""
        instants = self._instants
        after = bisect_right(instants, position, key=itemgetter(0))
        if not after:
            return None
        known = instants[after - 1]
        return Installed(known.last_fact, self._clock() - known.at_s)

    def page(self, connection: Connection, pull: PagePull) -> Page:
        """The page that answers a pull."""
        with self._mutex:
            began_s = self._cpu_clock()
            edition = self._edition
            if edition is None or not self._is_current(edition):
                self._edition = None  # whatever stops this half way, what it was made of is of no use
                edition = self._edition = renewed(connection, edition, self._clock())
                self._remember(edition)
            page = self._page(connection, edition, pull)
            self._spend(self._cpu_clock() - began_s)
            return page

    def _remember(self, edition: Edition) -> None:
        """Keep the instant, and of older ones some: who has one between two is taken to know the earlier."""
        before = self._instants
        if before and edition.position < before[-1].position:
            return
        if before and edition.position == before[-1].position:
            before = before[:-1]
        kept = [*before, Instant(edition.position, edition.last_fact, edition.made_s)]
        older = len(kept) - 1 - ALL_INSTANTS
        if older > 0 and kept[older].at_s < kept[older - 1].at_s + INSTANT_S:
            del kept[older]
        self._instants = tuple(kept[-MAX_INSTANTS:])

    def _page(self, connection: Connection, edition: Edition, pull: PagePull) -> Page:
        found = edition.pages.get(pull)
        if found is not None:
            return found
        _, base, after, _ = pull
        if edition.continues(pull) and is_continued(connection, base, after, edition.position):
            page = self._seal(edition.answer(pull))
            if len(edition.pages) < MAX_PAGES:
                edition.pages[pull] = page
            return page
        return self._seal(answer_pull(connection, *pull))

    def _is_current(self, edition: Edition) -> bool:
        """Whether nothing has changed since, or too much time was spent to look at it already."""
        now_s = self._clock()
        if now_s - edition.made_s >= MAX_AGE_S:
            return False
        unchanged = not self._shared and self._told <= edition.position
        return unchanged or now_s < self._sharing_until_s

    def _left_s(self, now_s: float) -> float:
        """What was spent and has not been earned since."""
        return max(0.0, self._spent_s - SHARE * (now_s - self._counted_s))

    def _spend(self, cpu_s: float) -> None:
        now_s = self._clock()
        self._spent_s, self._counted_s = self._left_s(now_s) + cpu_s, now_s
        if self._spent_s > BURST_S:
            self._sharing_until_s = now_s + SHARING_S


def renewed(connection: Connection, before: Edition | None, now_s: float) -> Edition:
    """The edition of this snapshot; made of the one before if it can be, which is of no use afterwards."""
    standing = read_standing(connection)
    if before is not None and standing.position < before.position:
        return before  # this snapshot is older than that was
    new = _new(connection, before) if before is not None and before.series == standing.series else None
    if before is None or new is None:
        before, new = _empty(standing.series), _NEWEST.rows(connection, limit=MAX_ROWS + 1)[::-1]
    return _grown(connection, before, new, standing.position, now_s)


def _empty(series: bytes) -> Edition:
    """Of which nothing has been read yet."""
    cards, heads = Recent[CardId, CardRow](), Recent[ReplicaId, NamedHead]()
    return Edition(series, oldest=0, position=0, made_s=0, cards=cards, heads=heads, last_fact=0, unmet=0)


def _grown(connection: Connection, before: Edition, new: Rows, position: int, now_s: float) -> Edition:
    """The edition of this snapshot: the one before, with the cards that changed since and with the heads."""
    cards, heads, oldest = before.cards, before.heads, before.oldest
    moved, last_fact = _HEADS.rows(connection, after=before.position), int(_END.value(connection))
    cards.add([Changed(Cursor(*row[:2]), CardId(row[1]), CardRow(*row[1:])) for row in new])
    heads.add([_changed(*row) for row in moved])
    if (beyond := len(cards.places) - MAX_ROWS) > 0:
        oldest = cards.places[beyond - 1].position
        cards.drop(beyond)
    heads.drop(bisect_left(heads.places, Cursor(oldest + 1)))
    return Edition(
        series=before.series,
        oldest=oldest,
        position=position,
        made_s=now_s,
        cards=cards,
        heads=heads,
        last_fact=last_fact,
        unmet=max((place for place, _, _, _, flags, _ in new if flags == UNMET), default=before.unmet),
    )


def _changed(position: int, replica: bytes, seq: int, hash_: bytes) -> Changed[ReplicaId, NamedHead]:
    author = ReplicaId(replica)
    return Changed(Cursor(position, replica=replica), author, (author, Head(seq, hash_)))


def _new(connection: Connection, before: Edition) -> Rows | None:
    """What changed since an edition; None when it is so much that reading all is as quick."""
    position, card, *_ = beginning(before.position)
    new = _AFTER.rows(connection, position=position, card=card, limit=MAX_ROWS)
    return None if len(new) == MAX_ROWS else new
