"""Revoking terminals, with a cut-off: up to which number what they wrote counts, signed for everybody.

The registry stops the terminal's own requests. The list of cut-offs travels to all terminals as a document,
so nobody takes later blocks from anybody; those lie in quarantine until an operator moves the cut-off.

Identities that a restored terminal gives up are cut off too. Those cut-offs never move: what lies beyond them
may have been written again under a later identity.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from http import HTTPStatus

from crdt.documents import SignedDocument
from crdt.errors import MisuseError, RefusalCode
from crdt.facts import MAX_SEQ, ReplicaId, TerminalId
from crdt.frontier import MAX_FRONTIER
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.store.hub import HubLedger
from hub.errors import RequestRefused
from hub.registry import Registry, Terminal

Seal = Callable[[str, int, bytes], Awaitable[None]]
"""Sign and keep a document: its name, the version that it replaces, its body."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation says now. `cut_offs`: by replica in hex."""

    name: str
    cut_offs: Mapping[str, int]


class Revoker:
    """Makes the list of revocations, one change at a time."""

    def __init__(self, ledger: HubLedger, registry: Registry, seal: Seal, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._registry = registry
        self._seal = seal
        self._now_ms = now_ms
        self._one_at_a_time = asyncio.Lock()

    async def revoke(self, name_or_id: str, cut_off: int | None) -> Revoked:
        """Stop a terminal at once. What all its identities wrote counts up to what the hub holds of each now;
        of the present one up to `cut_off`, where that is given."""
        async with self._one_at_a_time:
            terminal = await self._terminal(name_or_id)
            given = {} if cut_off is None else {terminal.replica: checked(cut_off)}
            await self._registry.revoke(terminal.terminal.hex(), self._now_ms())
            replicas = self._identities(terminal.terminal)
            heads = await asyncio.wrap_future(self._ledger.heads(replicas))
            cut_offs = {replica: heads[replica].seq if replica in heads else 0 for replica in replicas}
            return await self._put(terminal.name, cut_offs | given)

    async def accept(self, name_or_id: str, cut_off: int | None) -> Revoked:
        """Let what lies in quarantine of a revoked terminal count after all: all of it, or up to `cut_off` of
        its last identity. The terminal stays revoked."""
        async with self._one_at_a_time:
            terminal = await self._terminal(name_or_id)
            revocations, _ = await self._listed()
            listed = revocations.cut_offs
            revoked = listed.keys() - revocations.replaced
            replicas = [each for each in self._identities(terminal.terminal) if each in revoked]
            waiting = await self._waiting(replicas)
            wanted = {replica: max(listed[replica], waiting.get(replica, 0)) for replica in replicas}
            if cut_off is not None and terminal.replica in revoked:
                wanted = {terminal.replica: max(listed[terminal.replica], checked(cut_off))}
            if all(listed[replica] == seq for replica, seq in wanted.items()):
                raise RequestRefused(
                    "nothing",
                    f"Nothing of {terminal.name} waits in quarantine; nothing was changed.",
                    HTTPStatus.CONFLICT,
                )
            return await self._put(terminal.name, wanted)

    async def replace(self, replicas: Collection[ReplicaId]) -> None:
        """End these identities of a restored terminal where the hub holds them; those listed stay so.

        When it returns, nothing beyond counts any more. RequestRefused when the list is full.
        """
        async with self._one_at_a_time:
            while True:  # until it is there: another process that shares the database may list somebody else
                revocations, version = await self._listed()
                new = sorted(set(replicas) - revocations.cut_offs.keys())
                if not new:
                    return
                heads = await asyncio.wrap_future(self._ledger.heads(new))
                ends = {replica: heads[replica].seq if replica in heads else 0 for replica in new}
                try:
                    revocations = revocations.with_replaced(ends)
                except MisuseError as error:
                    raise _full() from error
                await self._seal(REVOKED_DOCUMENT, version, revocations.encode())

    async def replaced(self) -> AbstractSet[ReplicaId]:
        """The identities that were ended after a restore."""
        return (await self._listed())[0].replaced

    async def cut_offs(self) -> Mapping[ReplicaId, int]:
        """The list, as terminals have it."""
        return (await self._listed())[0].cut_offs

    async def _terminal(self, name_or_id: str) -> Terminal:
        for row in await self._registry.terminals():
            if name_or_id in (row.name, row.terminal.hex()):
                return row
        raise RequestRefused(
            "no_terminal", f"There is no terminal {name_or_id[:80]!r}.", HTTPStatus.NOT_FOUND
        )

    def _identities(self, terminal: TerminalId) -> list[ReplicaId]:
        return sorted(one.replica for one in self._ledger.authors().values() if one.terminal == terminal)

    async def _waiting(self, replicas: list[ReplicaId]) -> dict[ReplicaId, int]:
        """The last number of each replica's that lies in quarantine because it was revoked."""
        last: dict[ReplicaId, int] = {}
        for entry in await asyncio.wrap_future(self._ledger.forks()):
            if entry.replica in replicas and entry.reason is RefusalCode.REVOKED:
                last[entry.replica] = max(entry.last_seq, last.get(entry.replica, 0))
        return last

    async def _listed(self) -> tuple[Revocations, int]:
        document: SignedDocument | None
        document = await asyncio.wrap_future(self._ledger.document(REVOKED_DOCUMENT))
        if document is None:
            return NONE_REVOKED, 0
        return Revocations.decode(document.body), document.version

    async def _put(self, name: str, cut_offs: Mapping[ReplicaId, int]) -> Revoked:
        revocations, version = await self._listed()
        for replica, seq in cut_offs.items():
            revocations = revocations.with_cut_off(replica, seq)
        await self._seal(REVOKED_DOCUMENT, version, revocations.encode())
        return Revoked(name, {replica.hex(): seq for replica, seq in cut_offs.items()})


def _full() -> RequestRefused:
    return RequestRefused(
        "full",
        f"The list of identities that ended is full ({MAX_FRONTIER}). The terminal's taps are safe on it. "
        "Pair it again, and look why terminals are restored so often.",
        HTTPStatus.CONFLICT,
    )


def checked(cut_off: int) -> int:
    """A cut-off as an operator gives it; RequestRefused when it is no number of an entry."""
    if not 0 <= cut_off <= MAX_SEQ:
        raise RequestRefused("cut_off", "A cut-off is the number of an entry, from 0 on.")
    return cut_off
