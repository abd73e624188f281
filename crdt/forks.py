"""Forks: two blocks of one replica that cannot both be in its chain, and the proof that two signatures make.

A terminal whose storage is copied or restored from an old image writes numbers that it has used before.
Which of the two chains counts is the hub's word: the one it held first. The other one's facts are written
again under a new identity, so nobody's money is counted twice or dropped; the proof is kept.
"""

from dataclasses import dataclass

from crdt.block import Block, parse, verify
from crdt.certificate import AuthorCertificate
from crdt.errors import Malformed
from crdt.facts import ReplicaId


def contradict(one: Block, other: Block) -> bool:
    """Whether two blocks cannot be in one chain: they share a number and differ, or one denies the other.

    A block denies the one that ends right before it when it names another hash as `previous`. Two blocks of
    different replicas or fleets never contradict each other, nor do two far apart: what lies between may.
    """
    first, second = sorted((one, other), key=lambda block: block.header.first_seq)
    same_author = (first.header.fleet, first.header.replica) == (second.header.fleet, second.header.replica)
    if not same_author or first.hash == second.hash:
        return False
    if second.header.first_seq <= first.last_seq:
        return True
    return second.header.first_seq == first.last_seq + 1 and second.header.previous != first.hash


@dataclass(frozen=True, slots=True)
class ForkProof:
    """Two signed blocks that contradict each other. Anybody with the author's certificate can check it."""

    counted: bytes  # the block in the chain that counts
    quarantined: bytes  # the block that is kept out of it

    @property
    def replica(self) -> ReplicaId:
        """Whose chain forked."""
        return parse(self.counted).header.replica

    def verify(self, certificate: AuthorCertificate) -> None:
        """Raise InputRefused unless the (verified) certificate's author signed both, and they contradict."""
        one, other = parse(self.counted), parse(self.quarantined)
        verify(one, certificate)
        verify(other, certificate)
        if not contradict(one, other):
            raise Malformed("the two blocks can be in one chain; they prove no fork")
