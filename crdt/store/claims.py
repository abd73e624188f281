"""What a terminal says of somebody else's chain, and nothing proves: how far it goes.

A terminal knows such things from a settlement that the hub has lost, or from blocks that it carries; or it
makes them up. So it is told to the operator as what it is, changes no day, and what was given up of one
terminal's word stays given up, whatever it says later. What the author's own terminal says, and what a signed
block of the author shows, are expectations.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, select

from crdt.facts import MAX_TEXT_BYTES, ReplicaId, TerminalId
from crdt.frontier import Frontier
from crdt.store.authors import Authors
from crdt.store.futures import NOTHING
from crdt.store.hub_schema import CLAIMED
from crdt.store.sql import Lookup, replacing
from crdt.store.statement import Statement
from crdt.store.store import Store

_COLUMNS: Final = ("replica", "claimant", "seq", "at_ms", "source", "given_up")
_PUT: Final = replacing(CLAIMED)
_ALL: Final = Statement(select(*(CLAIMED.c[name] for name in _COLUMNS)))
_SOME: Final = Lookup(CLAIMED, "replica", _COLUMNS)


@dataclass(frozen=True, slots=True)
class Claim:
    """One terminal's word about another's chain."""

    replica: ReplicaId
    claimant: TerminalId
    seq: int  # the furthest number named
    at_ms: int  # when it was named first
    source: str  # a short text for people
    given_up: bool = False  # an operator does not wait for it, whatever this terminal says


class Claims:
    """The claims of a ledger, as far as this process knows them in memory too."""

    def __init__(self, database: Store, authors: Authors) -> None:
        self._database = database
        self._authors = authors
        self._mutex = threading.Lock()
        self._known: dict[tuple[ReplicaId, TerminalId], int] = {}
        self._learn(database.read_and_wait(read))

    def claim(self, frontier: Frontier, claimant: TerminalId, source: str, at_ms: int) -> Future[None]:
        """Note a terminal's word; done when it is durable. Costs nothing when not new.

        Only enrolled authors are noted.
        """
        text = source[:MAX_TEXT_BYTES]
        with self._mutex:
            news = [
                Claim(replica, claimant, head.seq, at_ms, text)
                for replica, head in frontier.items()
                if replica in self._authors.seen and head.seq > self._known.get((replica, claimant), 0)
            ]
        if not news:
            return NOTHING
        return self._database.write(
            lambda connection: _put(connection, news), after=lambda _: self._learn(news)
        )

    def _learn(self, claims: Collection[Claim]) -> None:
        with self._mutex:
            self._known.update({(one.replica, one.claimant): one.seq for one in claims})


def read(connection: Connection, replicas: Collection[ReplicaId] | None = None) -> list[Claim]:
    """The claims about these authors (about all, for None)."""
    rows = _ALL.rows(connection) if replicas is None else _SOME.run(connection, replicas)
    return [
        Claim(ReplicaId(replica), TerminalId(claimant), seq, at_ms, source, bool(given_up))
        for replica, claimant, seq, at_ms, source, given_up in rows
    ]


def furthest(connection: Connection) -> dict[ReplicaId, Claim]:
    """Of each author of whom somebody claims something that was not given up: the furthest."""
    found: dict[ReplicaId, Claim] = {}
    for one in read(connection):
        if not one.given_up and (one.replica not in found or one.seq > found[one.replica].seq):
            found[one.replica] = one
    return found


def give_up(connection: Connection, replica: ReplicaId, held_seq: int) -> bool:
    """Wait no longer for what is claimed of an author beyond what is held; whether anything was."""
    claims = [one for one in read(connection, [replica]) if one.seq > held_seq and not one.given_up]
    _write(connection, [replace(one, given_up=True) for one in claims])
    return bool(claims)


def _put(connection: Connection, news: Collection[Claim]) -> None:
    before = {(one.replica, one.claimant): one for one in read(connection, [one.replica for one in news])}
    changed = []
    for one in news:
        known = before.get((one.replica, one.claimant))
        if known is None or (one.seq > known.seq and not known.given_up):
            changed.append(one)
    _write(connection, changed)


def _write(connection: Connection, claims: Collection[Claim]) -> None:
    rows = [(one.replica, one.claimant, one.seq, one.at_ms, one.source, int(one.given_up)) for one in claims]
    _PUT.run(connection, rows)
