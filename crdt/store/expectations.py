"""What a hub is waiting for: how far chains are known to go, by anybody credible, beyond what it holds.

A hub that was restored from a backup learns so what it lost; and whether a terminal has told everything it
has is what a proof of completeness rests on. Nothing here changes a balance.

A terminal's word is of the identity that it speaks as. A former one, which was replaced when the terminal was
paired anew, ends with the word of whoever has the storage that it wrote to, and all of its chain. Another
storage, in place of one that was lost or on another bus, knows nothing of what it wrote last.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from crdt.certificate import AuthorCertificate
from crdt.facts import MAX_TEXT_BYTES, ReplicaId, TerminalId
from crdt.frontier import Frontier
from crdt.store import claims, papers
from crdt.store.authors import Authors
from crdt.store.blocks import NO_HEAD, heads_of
from crdt.store.futures import NOTHING, first
from crdt.store.hub_schema import EXPECTED
from crdt.store.sql import Lookup, replacing
from crdt.store.statement import Statement
from crdt.store.store import Store

HEARD_EVERY_MS: Final = 60_000  # a terminal speaks more often; written down is every so often
GIVEN_UP: Final = "given up"  # source of what an operator waits for no longer, whatever the marks say
NOWHERE: Final[Frontier] = MappingProxyType({})

_PUT: Final = replacing(EXPECTED)
_COLUMNS: Final = ("replica", "seq", "at_ms", "source", "heard_ms", "turn", "ended")
_ALL: Final = Statement(select(*(EXPECTED.c[name] for name in _COLUMNS)))
_CORRECT: Final = Statement(
    update(EXPECTED).where(EXPECTED.c.heard_ms > bindparam("now_ms")).values(heard_ms=bindparam("now_ms"))
)
_SOME: Final = Lookup(EXPECTED, "replica", _COLUMNS)


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of how far an author's chain goes."""

    seq: int = 0  # the furthest number named; 0 for none
    at_ms: int = 0  # when it was named first
    source: str = ""
    heard_ms: int = 0  # of the time before this the author has said all it has; 0: it never did
    ended: bool = False  # it writes no more: nothing comes after what is named
    turn: int = 0  # the greater, the later that was among its terminal's identities, by no clock

    def joined(self, other: Expected) -> Expected:
        """Both together: the further claim, and the other's word, which is the last: a clock may go back.

        One that had ended and speaks again goes on.
        """
        further = other if other.seq > self.seq else self
        ended = other.ended or (self.ended and not other.heard_ms)
        heard_ms, turn = other.heard_ms or self.heard_ms, max(self.turn, other.turn)
        return replace(further, heard_ms=heard_ms, ended=ended, turn=turn)

    def is_silent(self, kin: Iterable[Expected]) -> bool:
        """Whether it may have written more than was heard of it, and its terminal goes on as one of `kin`."""
        return not self.ended and any(one.turn > self.turn and not one.ended for one in kin)

    def limited(self, seq: int) -> Expected:
        """With nothing expected beyond this number."""
        return replace(self, seq=min(self.seq, seq))


NOTHING_EXPECTED: Final = Expected()


class Expectations:
    """The expectations of a ledger, as far as this process knows them in memory too."""

    def __init__(self, database: Store, authors: Authors) -> None:
        self._database = database
        self._authors = authors
        self._known: dict[ReplicaId, Expected] = database.read_and_wait(read)
        self._groups: defaultdict[TerminalId, set[ReplicaId]] = defaultdict(set)  # identities by terminal
        self._grouped = 0  # how many authors are in there
        self._speakers: dict[TerminalId, ReplicaId] = {}  # as which identity each terminal spoke last
        for replica, one in sorted(self._known.items(), key=lambda item: item[1].turn):
            if one.turn and replica in authors.seen:
                self._speakers[authors.seen[replica].terminal] = replica
        self._mutex = threading.Lock()

    def expect(
        self,
        frontier: Frontier,
        source: str,
        at_ms: int,
        by: ReplicaId | None = None,
        former: Frontier = NOWHERE,
        said_ms: int | None = None,
    ) -> Future[None]:
        """Note what somebody says of how far chains go; done when it is durable. Costs nothing when not new.

        `by`: the author that says so of itself, known from TLS: it has named all it has now, and what it
        writes later is dated after `said_ms`, or else `at_ms`. `former`: where the storage that it writes to
        has the identities that wrote there before. They end, unless more of them is known here. Only enrolled
        authors are noted. `source`: a short text for people.
        """
        source, said_ms = source[:MAX_TEXT_BYTES], at_ms if said_ms is None else said_ms
        known = self._authors.seen
        named = {one: Expected(head.seq, at_ms, source) for one, head in frontier.items() if one in known}
        news = self._news(named)
        if by is not None and self._is_word(news, by, said_ms):
            # All that it names: another process may have given up what is not new to this one.
            news = named | {by: replace(named.get(by, NOTHING_EXPECTED), heard_ms=said_ms)}
        if not news:
            return NOTHING
        shown = {} if by is None or by not in news else self._not_ended(by, former)

        def work(connection: Connection) -> tuple[None, Collection[ReplicaId]]:
            if by is not None and by in news:
                news[by] = replace(news[by], turn=self._turn(connection, by))
            put(connection, news)
            ended = _to_their_ends(connection, shown)
            end(connection, ended)
            return None, ended

        def after(result: tuple[None, Collection[ReplicaId]]) -> None:
            self._learn(news, by)
            self._learn({replica: Expected(ended=True) for replica in result[1]})

        return first(self._database.write(work, after=after))

    def give_up(self, replica: ReplicaId) -> Future[bool]:
        """Wait no longer for an author, whether anybody did: for what is proven to exist of it, and what is
        only claimed; and for what one whose terminal goes on as another may have written besides."""

        def work(connection: Connection) -> bool:
            known = read(connection, [replica]).get(replica, NOTHING_EXPECTED)
            held = heads_of(connection, [replica]).get(replica, NO_HEAD)
            kin = read(connection, _kin_of(self._authors.stored(), replica))
            ends, missing = known.is_silent(kin.values()), known.seq > held.seq
            if ends or missing:
                seq, source = (held.seq, GIVEN_UP) if missing else (known.seq, known.source)
                given_up = replace(known, seq=seq, source=source, ended=known.ended or ends)
                _write(connection, {replica: given_up})
            claimed = claims.give_up(connection, replica)
            return ends or missing or claimed

        def after(changed: bool) -> None:
            if changed:
                with self._mutex:
                    self._known.pop(replica, None)

        return self._database.write(work, after=after)

    def _news(self, named: Mapping[ReplicaId, Expected]) -> dict[ReplicaId, Expected]:
        with self._mutex:
            known = self._known
            return {
                replica: one
                for replica, one in named.items()
                if one.seq > known.get(replica, NOTHING_EXPECTED).seq
            }

    def _is_word(self, news: Collection[ReplicaId], by: ReplicaId, said_ms: int) -> bool:
        """Whether an author's word of itself is to be noted: it is late, or of another one, or says more."""
        if by not in self._authors.seen:
            return False
        with self._mutex:
            late = abs(said_ms - self._known.get(by, NOTHING_EXPECTED).heard_ms) >= HEARD_EVERY_MS
            return late or by in news or self._speakers.get(self._authors.seen[by].terminal) != by

    def _turn(self, connection: Connection, by: ReplicaId) -> int:
        """Of an author's word now: as before while it is the last, else after those of its kin. Read anew, as
        one of them may have spoken to another process."""
        with self._mutex:
            kin = self._kin(by)
        every = read(connection, {by, *kin})
        others = max([one.turn for replica, one in every.items() if replica != by], default=0)
        own = every.get(by, NOTHING_EXPECTED).turn
        return own if own > others else others + 1

    def _kin(self, by: ReplicaId) -> set[ReplicaId]:
        """The stored identities of an author's terminal. Looked through are only those that were stored since
        it was asked last: authors become more and never fewer."""
        stored = self._authors.stored()
        for one in islice(stored.values(), self._grouped, None):
            self._groups[one.terminal].add(one.replica)
        self._grouped = len(stored)
        return self._groups[self._authors.seen[by].terminal]

    def _not_ended(self, by: ReplicaId, former: Frontier) -> Frontier:
        """Those of these that are identities of the author's terminal, and have not ended yet."""
        kin = _kin_of({one: self._authors.seen[one] for one in {by, *former} & self._authors.seen.keys()}, by)
        with self._mutex:
            ended = {one for one in kin if self._known.get(one, NOTHING_EXPECTED).ended}
        return {replica: former[replica] for replica in kin - ended}

    def _learn(self, news: Mapping[ReplicaId, Expected], by: ReplicaId | None = None) -> None:
        with self._mutex:
            if by is not None and by in news:
                self._speakers[self._authors.seen[by].terminal] = by
            for replica, one in news.items():
                self._known[replica] = self._known.get(replica, NOTHING_EXPECTED).joined(one)


def read(connection: Connection, replicas: Collection[ReplicaId] | None = None) -> dict[ReplicaId, Expected]:
    """What is expected of these authors (of all, for None); those of whom nothing is known are left out."""
    rows = _ALL.rows(connection) if replicas is None else _SOME.run(connection, replicas)
    return {
        ReplicaId(replica): Expected(seq, at_ms, source, heard_ms, bool(ended), turn)
        for replica, seq, at_ms, source, heard_ms, turn, ended in rows
    }


def put(connection: Connection, news: Mapping[ReplicaId, Expected]) -> None:
    """Join these with what is known."""
    known = read(connection, news)
    joined = {replica: known.get(replica, NOTHING_EXPECTED).joined(one) for replica, one in news.items()}
    _write(connection, joined)


def end(connection: Connection, replicas: Collection[ReplicaId]) -> None:
    """Take it that these authors write no more, and that nothing is missing but what is known to be."""
    put(connection, {replica: Expected(ended=True) for replica in replicas})


def said_by(connection: Connection, now_ms: int) -> None:
    """What is noted of a time that has not come was noted by a clock that was ahead: it was said by now."""
    _CORRECT.run(connection, now_ms=now_ms)


def prove(connection: Connection, shown: Mapping[ReplicaId, int], at_ms: int) -> None:
    """Expect what signed blocks show to exist, except of authors that were given up."""
    known = read(connection, shown)
    news = {
        replica: Expected(seq, at_ms, "a later block of it")
        for replica, seq in shown.items()
        if seq > known.get(replica, NOTHING_EXPECTED).seq
        and known.get(replica, NOTHING_EXPECTED).source != GIVEN_UP
    }
    if news:
        put(connection, news)


def _kin_of(authors: Mapping[ReplicaId, AuthorCertificate], replica: ReplicaId) -> set[ReplicaId]:
    """The other identities of an author's terminal."""
    mine = authors.get(replica)
    every = () if mine is None else authors.values()
    return {one.replica for one in every if mine is not None and one.terminal == mine.terminal} - {replica}


def _to_their_ends(connection: Connection, shown: Frontier) -> list[ReplicaId]:
    """Those of these identities that a storage holds as far as anybody knows of them.

    Never one that was replaced because an old copy of its storage was put back: the copy fetches what is here
    of it, and what the storage wrote since is nowhere.
    """
    held, known = heads_of(connection, list(shown)), read(connection, shown)
    whole = [
        replica
        for replica, head in shown.items()
        if head.seq >= known.get(replica, NOTHING_EXPECTED).seq
        and (head.seq > held.get(replica, NO_HEAD).seq or head == held.get(replica, NO_HEAD))
    ]
    replaced = papers.revocations(connection).replaced if whole else ()
    return [replica for replica in whole if replica not in replaced]


def _write(connection: Connection, rows: Mapping[ReplicaId, Expected]) -> None:
    values = [
        (replica, one.seq, one.at_ms, one.source, one.heard_ms, one.turn, int(one.ended))
        for replica, one in rows.items()
    ]
    _PUT.run(connection, values)
