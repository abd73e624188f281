"""Revoking terminals, with a cut-off: up to which number what they wrote counts, signed for everybody.

The registry stops the terminal's own requests. The list of cut-offs travels to all terminals as a document,
so nobody takes later blocks from anybody; those lie in quarantine until an operator moves the cut-off.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from crdt.documents import SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import MAX_SEQ, ReplicaId, TerminalId
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
            listed = (await self._listed())[0].cut_offs
            replicas = [each for each in self._identities(terminal.terminal) if each in listed]
            waiting = await self._waiting(replicas)
            wanted = {replica: max(listed[replica], waiting.get(replica, 0)) for replica in replicas}
            if cut_off is not None and terminal.replica in listed:
                wanted = {terminal.replica: max(listed[terminal.replica], checked(cut_off))}
            if all(listed[replica] == seq for replica, seq in wanted.items()):
                raise RequestRefused(
                    "nothing",
                    f"Nothing of {terminal.name} waits in quarantine; nothing was changed.",
                    HTTPStatus.CONFLICT,
                )
            return await self._put(terminal.name, wanted)

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


def checked(cut_off: int) -> int:
    """A cut-off as an operator gives it; RequestRefused when it is no number of an entry."""
    if not 0 <= cut_off <= MAX_SEQ:
        raise RequestRefused("cut_off", "A cut-off is the number of an entry, from 0 on.")
    return cut_off
