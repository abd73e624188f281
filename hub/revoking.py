"""Revoking terminals, with a cut-off: up to which number what they wrote counts, signed for everybody.

The registry stops the terminal's own requests. The list of cut-offs travels to all terminals as a document,
so nobody takes later blocks from anybody; those lie in quarantine until an operator moves the cut-off.

Identities that a restored terminal gives up are cut off too. Those cut-offs never move: what lies beyond them
may have been written again under a later identity. Where the terminal is revoked afterwards and paired anew,
it writes no more of them again: what they had not sent is adopted by its content, or not at all.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from sqlalchemy import Connection

from crdt.errors import MisuseError, RefusalCode
from crdt.facts import MAX_SEQ, ReplicaId, TerminalId
from crdt.frontier import MAX_FRONTIER
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.store import expectations, papers, quarantine
from crdt.store.amending import Amendment
from crdt.store.blocks import NO_HEAD, Span, heads_of, overlapping
from crdt.store.hub import HubLedger
from crdt.store.quarantine import Quarantined
from hub import registry
from hub.errors import RequestRefused
from hub.registry import Registry
from hub.sealing import Sealer


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation says now. `cut_offs`: by replica in hex."""

    name: str
    cut_offs: Mapping[str, int]


class Revoker:
    """Makes the list of revocations. Each change reads the list and replaces it in one transaction.

    In that of a revocation the registry stops the terminal too: one that is paired anew at the same time is
    paired before it and ends, or after it and goes on.
    """

    def __init__(
        self, ledger: HubLedger, terminals: Registry, sealer: Sealer, now_ms: Callable[[], int]
    ) -> None:
        self._ledger = ledger
        self._registry = terminals
        self._sealer = sealer
        self._now_ms = now_ms

    async def revoke(self, name_or_id: str, cut_off: int | None) -> Revoked:
        """Stop a terminal at once. What all its identities wrote counts up to what the hub holds of each now;
        of the present one up to `cut_off`, where that is given, or the end of a block before it.

        One that was replaced has ended before, and stays so: a hub that was put back may hold less of it, and
        the rest counts. No more is waited for.

        Where the list is full it is stopped all the same, and RequestRefused says what that leaves open.
        """
        checked(cut_off)
        now_ms = self._now_ms()

        def work(amendment: Amendment) -> Revoked | str:
            terminal = registry.find(amendment.connection, name_or_id)
            registry.stop(amendment.connection, terminal.terminal, now_ms)
            ends = _held(amendment.connection, _identities(amendment, terminal.terminal))
            replaced = papers.revocations(amendment.connection).replaced
            expectations.end(amendment.connection, ends.keys() & replaced)
            given = {}
            if cut_off is not None:
                given[terminal.replica] = _whole(amendment.connection, terminal.replica, cut_off)
            try:
                revocations = papers.revocations(amendment.connection).with_revoked(ends | given)
            except MisuseError:
                return terminal.name
            return self._put(amendment, terminal.name, revocations, ends.keys())

        amending = self._ledger.amend(work, after=self._registry.forget)
        revoked = await asyncio.wrap_future(amending)
        if isinstance(revoked, str):
            raise _full_for(revoked)
        return revoked

    async def accept(self, name_or_id: str, cut_off: int | None) -> Revoked:
        """Let what lies in quarantine of a revoked terminal count after all: all of it, or up to `cut_off` of
        its last identity. The terminal stays revoked."""
        checked(cut_off)

        def work(amendment: Amendment) -> Revoked:
            terminal = registry.find(amendment.connection, name_or_id)
            revocations = papers.revocations(amendment.connection)
            listed = revocations.cut_offs
            revoked = listed.keys() - revocations.replaced
            replicas = [each for each in _identities(amendment, terminal.terminal) if each in revoked]
            waiting = _waiting(amendment.connection, replicas)
            wanted = {replica: max(listed[replica], waiting.get(replica, 0)) for replica in replicas}
            if cut_off is not None and terminal.replica in revoked:
                end = _whole(amendment.connection, terminal.replica, cut_off)
                wanted = {terminal.replica: max(listed[terminal.replica], end)}
            until = "" if cut_off is None else f" up to {cut_off}, as blocks count whole or not at all"
            if all(listed[replica] == seq for replica, seq in wanted.items()):
                raise RequestRefused(
                    "nothing",
                    f"Nothing of {terminal.name} waits in quarantine{until}; nothing was changed.",
                    HTTPStatus.CONFLICT,
                )
            for replica, seq in wanted.items():
                revocations = revocations.with_cut_off(replica, seq)
            return self._put(amendment, terminal.name, revocations, wanted.keys())

        return await asyncio.wrap_future(self._ledger.amend(work))

    def replace(self, amendment: Amendment, replicas: Collection[ReplicaId]) -> None:
        """End these identities of a restored terminal where the hub holds them; those listed stay so.

        Nothing beyond counts any more. RequestRefused when the list is full.
        """
        revocations = papers.revocations(amendment.connection)
        new = set(replicas) - revocations.cut_offs.keys()
        if not new:
            return
        try:
            revocations = revocations.with_replaced(_held(amendment.connection, new))
        except MisuseError as error:
            raise _full() from error
        self._sealer.put(amendment, REVOKED_DOCUMENT, revocations.encode())

    async def listed(self) -> Revocations:
        """The list, as terminals have it."""
        document = await asyncio.wrap_future(self._ledger.document(REVOKED_DOCUMENT))
        return NONE_REVOKED if document is None else Revocations.decode(document.body)

    def _put(
        self, amendment: Amendment, name: str, revocations: Revocations, replicas: Iterable[ReplicaId]
    ) -> Revoked:
        """Sign the list; what it says of these replicas."""
        self._sealer.put(amendment, REVOKED_DOCUMENT, revocations.encode())
        return Revoked(name, {replica.hex(): revocations.cut_offs[replica] for replica in replicas})


def _identities(amendment: Amendment, terminal: TerminalId) -> list[ReplicaId]:
    return sorted(one.replica for one in amendment.authors().values() if one.terminal == terminal)


def _held(connection: Connection, replicas: Iterable[ReplicaId]) -> dict[ReplicaId, int]:
    """The last number that the hub holds of each, 0 for none.

    What lies beyond a cut-off may still be on its way out of the record.
    """
    every = sorted(replicas)
    heads, cut_offs = heads_of(connection, every), papers.revocations(connection).cut_offs
    held = {replica: heads.get(replica, NO_HEAD).seq for replica in every}
    return {replica: min(seq, cut_offs.get(replica, seq)) for replica, seq in held.items()}


def _whole(connection: Connection, replica: ReplicaId, cut_off: int) -> int:
    """The end of the last block that a cut-off leaves whole. What it cuts through does not count, and whoever
    has the author's key could put other entries in its place if those were not beyond the cut-off."""
    every: list[Span | Quarantined] = [
        *overlapping(connection, replica, cut_off, cut_off),
        *quarantine.entries(connection, replica, reason=RefusalCode.REVOKED),
    ]
    cut_through = [one.first_seq for one in every if one.first_seq <= cut_off < one.last_seq]
    return min(cut_through, default=cut_off + 1) - 1


def _waiting(connection: Connection, replicas: Collection[ReplicaId]) -> dict[ReplicaId, int]:
    """The last number of each replica's that lies in quarantine because it was revoked."""
    last: dict[ReplicaId, int] = {}
    for replica in replicas:
        for entry in quarantine.entries(connection, replica, reason=RefusalCode.REVOKED):
            last[replica] = max(entry.last_seq, last.get(replica, 0))
    return last


def _full() -> RequestRefused:
    return RequestRefused(
        "full",
        f"The list of identities that ended is full ({MAX_FRONTIER}). The terminal's taps are safe on it. "
        "Pair it again, and look why terminals are restored so often.",
        HTTPStatus.CONFLICT,
    )


def _full_for(name: str) -> RequestRefused:
    return RequestRefused(
        "full",
        f"{name} comes no more to this hub, but the list of identities that ended is full ({MAX_FRONTIER}): "
        "what others bring of it still counts, and they do not know that it was revoked.",
        HTTPStatus.CONFLICT,
    )


def checked(cut_off: int | None) -> None:
    """RequestRefused when a cut-off, as an operator gives it, is no number of an entry."""
    if cut_off is not None and not 0 <= cut_off <= MAX_SEQ:
        raise RequestRefused("cut_off", "A cut-off is the number of an entry, from 0 on.")
