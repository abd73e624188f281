"""The hub's own chain of a replica, asked for block by block."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from crdt.block import parse
from crdt.certificate import AuthorCertificate
from crdt.errors import ChainBroken, InputRefused, RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, Message, Want
from edge.errors import AnswerRefused
from edge.exchange import Answer, refusal_in

MAX_CHAIN_BYTES = 64 * 1024 * 1024
"""Some years of one terminal."""


@dataclass(slots=True)
class CanonicalChain:
    """Blocks in order, each after the one before; not verified."""

    blocks: list[bytes] = field(default_factory=list)
    certificates: list[AuthorCertificate] = field(default_factory=list)
    size_bytes: int = 0


async def canonical_chain(
    say: Callable[[Sequence[Message]], Awaitable[Answer]], replica: ReplicaId, after_seq: int
) -> CanonicalChain:
    """What the hub holds of a replica after a number, to its end. Raises UplinkError."""
    chain = CanonicalChain()
    while True:
        answer = await say([Want({replica: after_seq})])
        for refusal in answer.refusals:
            if refusal.code is not RefusalCode.RESTORED:  # that is why the chain is asked for
                raise refusal_in(refusal)
        try:
            until_seq = _take(chain, answer, replica, after_seq)
        except InputRefused as error:
            raise AnswerRefused(error.code, str(error)) from error
        if until_seq == after_seq:
            return chain
        after_seq = until_seq


def _take(chain: CanonicalChain, answer: Answer, replica: ReplicaId, after_seq: int) -> int:
    """Add an answer's blocks; the number they end at."""
    for message in answer.messages:
        match message:
            case CertificateFrame(raw) if not chain.certificates:
                certificate = AuthorCertificate.decode(raw)
                chain.certificates += [certificate] if certificate.replica == replica else []
            case BlockFrame(raw):
                header = parse(raw).header
                if header.replica != replica or header.first_seq != after_seq + 1:
                    raise ChainBroken("the blocks are not those that were asked for")
                after_seq = header.first_seq + header.count - 1
                chain.blocks.append(raw)
                chain.size_bytes += len(raw)
                if chain.size_bytes > MAX_CHAIN_BYTES:
                    raise ChainBroken("the chain is longer than any terminal's can be")
    return after_seq
