"""Chains that the hub refuses because they have ended; the list of revocations held has to say so too."""

from crdt.block import parse
from crdt.facts import MAX_SEQ, ReplicaId
from edge.run import Run


class Ended:
    """What one run hears of them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._after: dict[ReplicaId, int] = {}
        self._has_doubted = False
        self._doubt = False

    def note(self, replica: ReplicaId, seq: int) -> None:
        """The hub refuses what follows this number, because the chain has ended."""
        self._after[replica] = seq

    def __contains__(self, replica: ReplicaId) -> bool:
        return replica in self._after

    async def contradicts_list(self) -> bool:
        """Whether the hub has turned out just now to go by another list of revocations than the one held.

        It has brought none, so its own has the same number: it was put back, and does not know it. Once in a
        run, for it may be a lie.
        """
        if self._has_doubted:
            return False
        self._has_doubted = not all([await self._is_listed(*one) for one in self._after.items()])
        self._doubt = self._has_doubted
        return self._has_doubted

    def take_doubt(self) -> bool:
        """Whether the hub is to be asked for its own list, whichever is held. Said once, for one question."""
        doubt, self._doubt = self._doubt, False
        return doubt

    async def _is_listed(self, replica: ReplicaId, seq: int) -> bool:
        """Whether by the list held, too, no block of this chain counts that follows this number."""
        run = self._run
        cut_off = (await run.use(run.ledger.revocations)).cut_offs.get(replica, MAX_SEQ)
        following = await run.use(run.ledger.blocks_after, seq, 1, replica)
        return all(parse(raw).last_seq > cut_off for raw in following[:1])
