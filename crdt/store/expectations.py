"""What a hub is waiting for: how far chains are known to go, by anybody credible, beyond what it holds.

A hub that was restored from a backup learns so what it lost; and whether a terminal has told everything it
has is what a proof of completeness rests on. Nothing here changes a balance.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, select

from crdt.facts import MAX_SEQ, MAX_TEXT_BYTES, ReplicaId, TerminalId
from crdt.frontier import Frontier
from crdt.revocations import Revocations
from crdt.store import claims, quarantine
from crdt.store.authors import Authors
from crdt.store.blocks import NO_HEAD, heads_of
from crdt.store.futures import NOTHING
from crdt.store.schema import EXPECTED
from crdt.store.sql import Lookup, replacing
from crdt.store.statement import Statement
from crdt.store.store import Store

HEARD_EVERY_MS: Final = 60_000  # a terminal speaks more often; written down is every so often
GIVEN_UP: Final = "given up"  # source of what an operator waits for no longer, whatever the marks say

_PUT: Final = replacing(EXPECTED)
_COLUMNS: Final = ("replica", "seq", "at_ms", "source", "heard_ms")
_ALL: Final = Statement(select(*(EXPECTED.c[name] for name in _COLUMNS)))
_SOME: Final = Lookup(EXPECTED, "replica", _COLUMNS)


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of how far an author's chain goes."""

    seq: int = 0  # the furthest number named; 0 for none
    at_ms: int = 0  # when it was named first
    source: str = ""
    heard_ms: int = 0  # when the author's terminal last said all it has; 0 for never

    def joined(self, other: Expected) -> Expected:
        """Both together: the further claim, and the other's word, which is the last: a clock may go back."""
        further = other if other.seq > self.seq else self
        return replace(further, heard_ms=other.heard_ms or self.heard_ms)

    def limited(self, seq: int) -> Expected:
        """With nothing expected beyond this number."""
        return replace(self, seq=min(self.seq, seq))


NOTHING_EXPECTED: Final = Expected()


@dataclass(frozen=True, slots=True)
class Waiting:
    """Facts of an author that exist somewhere and are not here."""

    replica: ReplicaId
    held_seq: int
    expected_seq: int
    since_ms: int
    source: str
    proven: bool = True  # by the author's terminal, a signed block or the marks; else a terminal's mere word


class Expectations:
    """The expectations of a ledger, as far as this process knows them in memory too."""

    def __init__(self, database: Store, authors: Authors) -> None:
        self._database = database
        self._authors = authors
        self._known: dict[ReplicaId, Expected] = database.read_and_wait(read)
        self._mutex = threading.Lock()
        self._identities: tuple[int, Mapping[TerminalId, Sequence[ReplicaId]]] = (0, {})

    def expect(
        self, frontier: Frontier, source: str, at_ms: int, by: ReplicaId | None = None
    ) -> Future[None]:
        """Note what somebody says of how far chains go; done when it is durable. Costs nothing when not new.

        `by`: the author that says so of itself, known from TLS: its terminal has named all it has now. Only
        enrolled authors are noted. `source`: a short text for people.
        """
        news = self._news(frontier, source[:MAX_TEXT_BYTES], at_ms, by)
        if not news:
            return NOTHING
        return self._database.write(
            lambda connection: put(connection, news), after=lambda _none: self._learn(news)
        )

    def give_up(self, replica: ReplicaId) -> Future[bool]:
        """Wait no longer for what is missing of an author, whether anything was: first for what is proven to
        exist, then for what is only claimed."""

        def work(connection: Connection) -> bool:
            known = read(connection, [replica]).get(replica, NOTHING_EXPECTED)
            held = heads_of(connection, [replica]).get(replica, NO_HEAD)
            if known.seq <= held.seq:
                return claims.give_up(connection, replica, held.seq)
            _write(connection, {replica: replace(known, seq=held.seq, source=GIVEN_UP)})
            return True

        def after(changed: bool) -> None:
            if changed:
                with self._mutex:
                    self._known.pop(replica, None)

        return self._database.write(work, after=after)

    def _news(
        self, frontier: Frontier, source: str, at_ms: int, by: ReplicaId | None
    ) -> dict[ReplicaId, Expected]:
        news: dict[ReplicaId, Expected] = {}
        with self._mutex:
            for replica, head in frontier.items():
                known = self._known.get(replica, NOTHING_EXPECTED)
                if head.seq > known.seq and replica in self._authors.seen:
                    news[replica] = Expected(head.seq, at_ms, source)
            for replica in self._same_terminal(by):
                known = self._known.get(replica, NOTHING_EXPECTED)
                if replica in news or abs(at_ms - known.heard_ms) >= HEARD_EVERY_MS:
                    news[replica] = replace(news.get(replica, NOTHING_EXPECTED), heard_ms=at_ms)
        return news

    def _learn(self, news: Mapping[ReplicaId, Expected]) -> None:
        with self._mutex:
            for replica, one in news.items():
                self._known[replica] = self._known.get(replica, NOTHING_EXPECTED).joined(one)

    def _same_terminal(self, by: ReplicaId | None) -> Sequence[ReplicaId]:
        """All identities of the terminal of an enrolled author."""
        author = None if by is None else self._authors.seen.get(by)
        if author is None:
            return ()
        if self._identities[0] != len(self._authors.seen):
            found: defaultdict[TerminalId, list[ReplicaId]] = defaultdict(list)
            every = list(self._authors.seen.values())
            for one in every:
                found[one.terminal].append(one.replica)
            self._identities = len(every), found
        return self._identities[1].get(author.terminal, ())


def read(connection: Connection, replicas: Collection[ReplicaId] | None = None) -> dict[ReplicaId, Expected]:
    """What is expected of these authors (of all, for None); those of whom nothing is known are left out."""
    rows = _ALL.rows(connection) if replicas is None else _SOME.run(connection, replicas)
    return {ReplicaId(row[0]): Expected(*row[1:]) for row in rows}


def put(connection: Connection, news: Mapping[ReplicaId, Expected]) -> None:
    """Join these with what is known."""
    known = read(connection, news)
    joined = {replica: known.get(replica, NOTHING_EXPECTED).joined(one) for replica, one in news.items()}
    _write(connection, joined)


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


def waiting(connection: Connection, revocations: Revocations) -> list[Waiting]:
    """What is expected and not held, by replica; what is only claimed, where nothing is proven to be missing.

    What a revoked author wrote after its cut-off is not. Of a replaced one nobody decided that, and what is
    in quarantine is here.
    """
    heads, known, claimed = heads_of(connection), read(connection), claims.furthest(connection)
    found = []
    for replica in sorted(known.keys() | claimed.keys()):
        held_seq, until = heads.get(replica, NO_HEAD).seq, revocations.cut_offs.get(replica, MAX_SEQ)
        if replica in revocations.replaced:
            held_seq, until = quarantine.examined(connection, replica, held_seq), MAX_SEQ
        for one in (known.get(replica), claimed.get(replica)):
            if one is not None:
                seq = min(one.seq, until)
                if seq > held_seq:
                    proven = isinstance(one, Expected)
                    found.append(Waiting(replica, held_seq, seq, one.at_ms, one.source, proven))
                    break
    return found


def _write(connection: Connection, rows: Mapping[ReplicaId, Expected]) -> None:
    _PUT.run(
        connection,
        [(replica, one.seq, one.at_ms, one.source, one.heard_ms) for replica, one in rows.items()],
    )
