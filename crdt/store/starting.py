"""How a hub's ledger begins, and begins again: whose it is, and whether its database was put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from crdt.certificate import AuthorCertificate, Role
from crdt.errors import ForeignFleet, RefusalCode
from crdt.facts import FleetId, ReplicaId
from crdt.frontier import Frontier
from crdt.settlement import SERIES_BYTES
from crdt.store import balances, blocks, expectations, flags, papers, witness
from crdt.store.admission import Suspicion
from crdt.store.authors import second_certificate
from crdt.store.blocks import NO_HEAD
from crdt.store.expectations import GIVEN_UP, NOTHING_EXPECTED, Expected
from crdt.store.hub_schema import HUB, HUB_METADATA
from crdt.store.marks import Marks
from crdt.store.neighbours import Place, place_of
from crdt.store.statement import Statement
from crdt.store.store import Shared, Store

RUN_BYTES: Final = (
    5  # of the random distance between two runs of positions: a month's merges are 2**-20 of it
)

_TWICE: Final = (
    "The database went back, and the hub gave the number {seq} again: what it had booked under it counts once"
    " a terminal brings it and you adopt it. Until then look at the receipts."
)
_FLEET: Final = Statement(select(HUB.c.fleet))


@dataclass(frozen=True, slots=True)
class Begun:
    """A ledger that is ready."""

    authors: Sequence[AuthorCertificate]
    series: bytes
    place: Place
    restored: bool  # its own chain must not be continued with this key


def begin(
    database: Store,
    certificate: AuthorCertificate,
    marks: Marks | None,
    entropy: Callable[[int], bytes],
    at_ms: int,
) -> Begun:
    """Load a ledger, or make it; waits. Raises ForeignFleet, NotPermitted or StoreFailed."""
    database.create(HUB_METADATA)
    put_back = False
    shared = isinstance(database, Shared)
    if marks is not None:
        put_back = database.read_and_wait(
            lambda connection: _is_put_back(connection, certificate, marks, shared)
        )
        marks.save()

    def work(connection: Connection) -> Begun:
        _begin_row(connection, certificate.fleet, entropy)
        if put_back and blocks.authors_of(connection, [certificate.replica]):
            witness.disown(connection, certificate.replica, entropy(SERIES_BYTES))
        if marks is not None:
            witness.enter(connection, marks, shared=shared)
            expectations.put(connection, _lost(connection, marks.heads, at_ms))
            flags.put(connection, _numbered_again(connection, marks.heads), at_ms)
        if blocks.enrol(connection, [certificate])[1]:
            raise second_certificate()
        retired = witness.retired(connection)
        authors = list(blocks.authors_of(connection).values())
        series = balances.read_standing(connection).series
        return Begun(authors, series, place_of(connection), retired == certificate.replica)

    begun = database.write_and_wait(work)
    if marks is not None:
        marks.advance(database.read_and_wait(blocks.heads_of))
        marks.started()
    return begun


def _is_put_back(connection: Connection, certificate: AuthorCertificate, marks: Marks, shared: bool) -> bool:
    """Whether the database is not the one that was here last, as far as the hub's own chain goes.

    A copy that was made and put back between two starts has the right nonce; then the marks tell, unless
    another process was there first. What is missing of somebody revoked tells nothing: the hub takes it out
    itself.
    """
    nonce = witness.nonce_to_compare(connection, marks, shared=shared)
    own = certificate.replica
    started = marks.check_start(nonce, blocks.heads_of(connection, [own]), of=[own])
    seen_to = shared and witness.is_seen_to(connection, marks)
    revoked = papers.revocations(connection).cut_offs
    return started or not (seen_to or _lost(connection, marks.heads, 0).keys() <= revoked.keys())


def _begin_row(connection: Connection, fleet: FleetId, entropy: Callable[[int], bytes]) -> None:
    found = _FLEET.value(connection)
    if found is None:
        balances.begin_standing(connection, fleet, entropy(SERIES_BYTES))
        balances.begin_run(connection, 0)
    elif found != fleet:
        raise ForeignFleet("this ledger belongs to another fleet")
    else:
        balances.begin_run(connection, int.from_bytes(entropy(RUN_BYTES), "big"))


def _numbered_again(connection: Connection, marks: Frontier) -> list[Suspicion]:
    """Chains of the hub's own that have another block now where a mark says what was here.

    The database went back, and a process that had lost nothing went on with the chain before anybody noticed.
    """
    authors = blocks.authors_of(connection, list(marks))
    found = []
    for replica, author in authors.items():
        mark = marks[replica]
        spans = blocks.overlapping(connection, replica, mark.seq, mark.seq) if author.role is Role.HUB else []
        if any((span.last_seq, span.hash) != mark for span in spans):
            found.append(Suspicion(replica, RefusalCode.FORK_DETECTED, mark.seq, _TWICE.format(seq=mark.seq)))
    return found


def _lost(connection: Connection, marks: Frontier, at_ms: int) -> Mapping[ReplicaId, Expected]:
    """What the marks say was here and is not, beyond what is waited for, and what was given up."""
    heads = blocks.heads_of(connection)
    known = expectations.read(connection)
    return {
        replica: Expected(mark.seq, at_ms, "this hub's own marks")
        for replica, mark in marks.items()
        if mark.seq > max(heads.get(replica, NO_HEAD).seq, known.get(replica, NOTHING_EXPECTED).seq)
        and known.get(replica, NOTHING_EXPECTED).source != GIVEN_UP
    }
