"""What a terminal says of chains beyond what it brings: how far they go, and which it has otherwise.

Of itself it is believed; of others nothing is proved by its word, so that is told as no more than that.
"""

from collections.abc import Callable

from crdt.facts import ReplicaId
from crdt.frontier import Frontier
from crdt.store.expectations import NOWHERE
from crdt.store.hub import HubLedger
from hub.heard import Heard
from hub.waiting import Wait


class Hearsay:
    """Notes it, exchange by exchange."""

    def __init__(self, ledger: HubLedger, wait: Wait, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._wait = wait
        self._now_ms = now_ms

    async def note(self, heard: Heard, frontier: Frontier, heads: Frontier, *, believed: bool) -> None:
        """Note how far chains go by its word, beyond the hub's heads of them. Of itself it is not `believed`
        on another branch."""
        beyond = _beyond(frontier, heads)
        said = {replica: head for replica, head in beyond.items() if believed or replica != heard.replica}
        by = heard.replica if believed and heard.said_all else None
        await self._note(heard, said, heard.name, by, heard.former)
        if heard.settled is not None:
            named = heard.settled.frontier
            held = await self._wait(self._ledger.heads(sorted(named)))
            await self._note(heard, _beyond(named, held), f"{heard.name}, settled")

    async def branches(self, heard: Heard, frontier: Frontier, heads: Frontier) -> list[ReplicaId]:
        """Chains of others of which the terminal has a branch that is shorter than the chain that counts.

        To it that branch looks like the chain's beginning, and its settlement would cover it up. It is told
        no head of it, so that it sends what it has: then the hub holds the proof, and somebody is told.
        """
        behind = {
            replica: head
            for replica, head in frontier.items()
            if replica != heard.replica and replica in heads and head.seq < heads[replica].seq
        }
        if not behind:
            return []
        kin = self._kin(heard.replica, behind)
        behind = {replica: head for replica, head in behind.items() if replica not in kin}
        return await self._wait(self._ledger.denied(behind))

    async def _note(
        self,
        heard: Heard,
        said: Frontier,
        source: str,
        by: ReplicaId | None = None,
        former: Frontier = NOWHERE,
    ) -> None:
        """Wait for what it says of its own chains, and keep what it says of others' as its word."""
        if heard.replica not in self._ledger.authors():
            return
        now_ms = self._now_ms()
        own = self._kin(heard.replica, said)
        of_itself = {replica: head for replica, head in said.items() if replica in own}
        of_others = {replica: head for replica, head in said.items() if replica not in own}
        said_ms = heard.said_ms(now_ms)
        speaks = by if said_ms else None
        await self._wait(self._ledger.expect(of_itself, source, now_ms, speaks, former, said_ms))
        await self._wait(self._ledger.claim(of_others, heard.replica, source, now_ms))

    def _kin(self, replica: ReplicaId, named: Frontier) -> set[ReplicaId]:
        """Those of these that are identities of the author's own terminal."""
        authors = self._ledger.authors()
        own = authors.get(replica)
        if own is None:
            return set()
        return {one for one in named.keys() & authors.keys() if authors[one].terminal == own.terminal}


def _beyond(frontier: Frontier, heads: Frontier) -> Frontier:
    """What somebody names and is not here; what is here need not be waited for."""
    return {
        replica: head
        for replica, head in frontier.items()
        if replica not in heads or head.seq > heads[replica].seq
    }
