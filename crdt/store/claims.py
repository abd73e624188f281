"""What a terminal says of somebody else's chain, and nothing proves: how far it goes.

A terminal knows such things from a settlement that the hub has lost, or from blocks that it carries; or it
makes them up. So it is told to the operator as what it is, and changes no day. What was given up of one
terminal's word stays given up as long as that has a place here, whatever it says later. What the author's own
terminal says, and what a signed block of the author shows, are expectations.

After a hub was put back every terminal names nearly every chain, most of them about as far. So of each author
only the furthest few claims are kept, and none that is held by now: what is kept, read and written grows with
the authors of whom something is missing, and not with who says so. One terminal has one of those places
whatever it says, so it takes as many liars to keep an honest word out; then it is lost, unless its speaker
says it again before a full load.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select

from crdt.certificate import AuthorCertificate
from crdt.facts import MAX_TEXT_BYTES, ReplicaId, TerminalId
from crdt.frontier import Frontier
from crdt.revocations import Revocations
from crdt.store import papers
from crdt.store.authors import Authors
from crdt.store.blocks import NO_HEAD, heads_of
from crdt.store.futures import NOTHING, then
from crdt.store.hub_schema import CLAIMED
from crdt.store.sql import Lookup, replacing
from crdt.store.statement import Statement
from crdt.store.store import Store

MAX_CLAIMANTS: Final = 4  # of one author

_COLUMNS: Final = ("replica", "place", "claimant", "seq", "at_ms", "source", "given_up")
_PUT: Final = replacing(CLAIMED)
_ANY: Final = Statement(select(CLAIMED.c.place).limit(1))
_STANDING: Final = Statement(select(*(CLAIMED.c[name] for name in _COLUMNS)).where(CLAIMED.c.given_up == 0))
_OF: Final = Lookup(CLAIMED, "replica", _COLUMNS)
_CLAIMED_OF: Final = Lookup(CLAIMED, "replica", ("replica", "seq"))
_CLAIMANTS: Final = Statement(select(CLAIMED.c.claimant).distinct())
_DROP_HELD: Final = Statement(
    CLAIMED.delete().where(CLAIMED.c.replica == bindparam("replica"), CLAIMED.c.seq <= bindparam("held_seq"))
)
_DROP_BY: Final = Statement(CLAIMED.delete().where(CLAIMED.c.claimant == bindparam("claimant")))


@dataclass(frozen=True, slots=True)
class Claim:
    """One terminal's word about another's chain."""

    replica: ReplicaId
    claimant: TerminalId
    seq: int  # the furthest number named
    at_ms: int  # when it was named first
    source: str  # a short text for people
    given_up: bool = False  # an operator does not wait for it, whatever this terminal says
    place: int = 0  # which of its author's it is, below MAX_CLAIMANTS


class Claims:
    """Notes what terminals say."""

    def __init__(self, database: Store, authors: Authors) -> None:
        self._database = database
        self._authors = authors

    def claim(self, frontier: Frontier, by: ReplicaId, source: str, at_ms: int) -> Future[None]:
        """Note what the terminal of this author says; done when it is durable. Nothing new is only read.

        Only of enrolled authors, and by one that is not revoked.
        """
        said = self._said(frontier, by, source[:MAX_TEXT_BYTES], at_ms)
        if not said:
            return NOTHING
        outcome: Future[None] = Future()
        outcome.set_running_or_notify_cancel()

        def note(news: Sequence[Claim]) -> None:
            if news:
                writing = self._database.write(lambda connection: _put(connection, news, by))
                writing.add_done_callback(then(outcome, outcome.set_result))
            else:
                outcome.set_result(None)

        reading = self._database.read(lambda connection: _news(connection, said))
        reading.add_done_callback(then(outcome, note))
        return outcome

    def _said(self, frontier: Frontier, by: ReplicaId, source: str, at_ms: int) -> list[Claim]:
        speaker = self._authors.seen.get(by)
        if speaker is None:
            return []
        return [
            Claim(replica, speaker.terminal, head.seq, at_ms, source)
            for replica, head in frontier.items()
            if replica in self._authors.seen
        ]


def furthest(connection: Connection) -> dict[ReplicaId, Claim]:
    """Of each author of whom somebody claims something that was not given up: the furthest."""
    found: dict[ReplicaId, Claim] = {}
    for one in map(_claim, _STANDING.rows(connection)):
        if one.replica not in found or one.seq > found[one.replica].seq:
            found[one.replica] = one
    return found


def give_up(connection: Connection, replica: ReplicaId) -> bool:
    """Wait no longer for what is claimed of an author; whether anything was."""
    claims = [one for one in _read(connection, [replica]) if not one.given_up]
    _write(connection, [replace(one, given_up=True) for one in claims])
    return bool(claims)


def drop_held(connection: Connection, heads: Mapping[ReplicaId, int]) -> None:
    """Forget what was claimed of these authors as far as they are held now."""
    if _ANY.row(connection) is None:
        return  # as nearly always, and every merge asks
    come = {replica for replica, seq in _CLAIMED_OF.run(connection, heads) if seq <= heads[replica]}
    for replica in come:
        _DROP_HELD.run(connection, replica=replica, held_seq=heads[replica])


def drop_of_revoked(
    connection: Connection, authors: Mapping[ReplicaId, AuthorCertificate], revocations: Revocations
) -> None:
    """Forget what terminals said that were revoked. One that was paired anew since is heard again."""
    claimants = {TerminalId(claimant) for (claimant,) in _CLAIMANTS.rows(connection)}
    if not claimants:
        return
    revoked = revocations.revoked
    going_on = {one.terminal for replica, one in authors.items() if replica not in revoked}
    for claimant in claimants - going_on:
        _DROP_BY.run(connection, claimant=claimant)


def _put(connection: Connection, said: Collection[Claim], by: ReplicaId) -> None:
    """Within a write, before which others may have come."""
    if by not in papers.revocations(connection).revoked:
        _write(connection, _news(connection, said))


def _news(connection: Connection, said: Collection[Claim]) -> list[Claim]:
    """Those of one terminal's claims that are to be kept, each in its place."""
    named = [one.replica for one in said]
    held, kept = heads_of(connection, named), defaultdict[ReplicaId, list[Claim]](list)
    for one in _read(connection, named):
        kept[one.replica].append(one)
    beyond = (one for one in said if one.seq > held.get(one.replica, NO_HEAD).seq)
    placed = (_placed(one, kept[one.replica]) for one in beyond)
    return [one for one in placed if one is not None]


def _placed(one: Claim, kept: Sequence[Claim]) -> Claim | None:
    """The claim in its claimant's place, or a free one, or that of the least far; None where it says no more
    than what is there."""
    own = next((other for other in kept if other.claimant == one.claimant), None)
    if own is not None:
        return replace(one, place=own.place, given_up=own.given_up) if one.seq > own.seq else None
    if len(kept) < MAX_CLAIMANTS:
        return replace(one, place=min(set(range(MAX_CLAIMANTS)) - {other.place for other in kept}))
    least = min(kept, key=lambda other: other.seq)
    return replace(one, place=least.place) if one.seq > least.seq else None


def _read(connection: Connection, replicas: Collection[ReplicaId]) -> list[Claim]:
    return [_claim(row) for row in _OF.run(connection, replicas)]


def _claim(row: Sequence[Any]) -> Claim:
    replica, place, claimant, seq, at_ms, source, given_up = row
    return Claim(ReplicaId(replica), TerminalId(claimant), seq, at_ms, source, bool(given_up), place)


def _write(connection: Connection, claims: Collection[Claim]) -> None:
    rows = [
        (one.replica, one.place, one.claimant, one.seq, one.at_ms, one.source, int(one.given_up))
        for one in claims
    ]
    _PUT.run(connection, rows)
