"""What a ledger lets in, and what is durable."""

from typing import Final

from crdt import block, certificate
from crdt.store import admission, authors, memory, sealing, writer
from tests.simulation.mutations.planting import mutation

MUTATIONS: Final = (
    mutation(
        "a block is taken although those before it are missing",
        60,
        admission._Judge._check_chain,
        """raise ChainBroken(f"the author's deltas {head.seq + 1} to {header.first_seq - 1} are missing")""",
        "return",
        first=6,
    ),
    mutation(
        "the hash of the block before is not compared",
        60,
        admission._Judge._check_chain,
        "header.first_seq == head.seq + 1 and header.previous == head.hash",
        "header.first_seq == head.seq + 1",
        first=4,
    ),
    mutation(
        "a fork is taken silently",
        60,
        admission._Judge._check_chain,
        'fork = ForkDetected("the author sealed two different blocks for the same sequence numbers")',
        "return",
        first=1,
    ),
    mutation(
        "signatures of blocks are not checked",
        60,
        block.verify,
        "if not signed_by(",
        "if False and signed_by(",
        first=1,
    ),
    mutation(
        "certificates of anybody count",
        60,
        authors.Authors.check,
        "certificate.verify(self._fleet_public_key)",
        "pass",
        first=1,
    ),
    mutation(
        "the limits of a certificate are not kept",
        60,
        certificate.AuthorCertificate.permits,
        "return ",
        "return True or ",
        first=1,
    ),
    mutation("a tap is acknowledged and not committed", 5, writer.Direct.commit, 'execute("COMMIT")', "pass"),
    mutation(
        "open taps are forgotten at a restart",
        60,
        memory.Memory.__init__,
        "self.segment = rows",
        "self.segment = []",
        first=6,
    ),
    mutation(
        "sealing leaves a tap in memory",
        10,
        memory.Memory.sealed,
        "head.seq - self.head.seq]",
        "head.seq - self.head.seq - 1]",
    ),
    mutation(
        "a block is sealed after another head",
        30,
        sealing.Sealer._draft,
        "deltas, head.hash)",
        "deltas, blocks.NO_HEAD.hash)",
    ),
)
