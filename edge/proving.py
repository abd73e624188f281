"""What does not count here goes up to the hub: as proof, and for its facts, about which somebody decides."""

from crdt.facts import ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, Message
from crdt.store.quarantine import Quarantined
from edge.delivery import at_a_time, is_examined, is_unread
from edge.run import Run

EVIDENCE_BLOCKS = 64
"""Most blocks in quarantine that go up in one exchange."""


class Proving:
    """What one run brings of the quarantine, once; of one author at a time.

    An author of whom the hub takes no more now does not keep the others' back, and comes again: one block of
    it with every run that retries, until the hub takes that.
    """

    def __init__(self, run: Run, *, retry: bool) -> None:
        self._run = run
        self._slowed = run.delivery.unproven
        self._later: set[ReplicaId] = set() if retry else set(self._slowed)

    async def give(self) -> None:
        """Until the hub has all that it takes. Raises UplinkError."""
        run = self._run
        while run.may_go_on:
            entries = await run.use(run.ledger.quarantined, EVIDENCE_BLOCKS, self._later)
            if not entries:
                return
            author = entries[0].replica
            await self._give([entry for entry in entries if entry.replica == author], author)

    async def _give(self, entries: list[Quarantined], author: ReplicaId) -> None:
        run = self._run
        most_bytes = 1 if author in self._slowed else run.delivery.push_bytes
        raws = at_a_time([entry.raw for entry in entries], most_bytes)
        certificate = (await run.use(run.ledger.authors)).get(author)
        papers: list[Message] = [] if certificate is None else [CertificateFrame(certificate.encode())]
        answer = await run.say({}, [*papers, *map(BlockFrame, raws)])
        if not is_examined(answer) or is_unread(answer):
            self._later.add(author)
            self._slowed.add(author)
            return
        self._slowed.discard(author)
        await run.use(run.ledger.evidence_delivered, [entry.hash for entry in entries[: len(raws)]])
