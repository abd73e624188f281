"""What a replica has written and not sealed yet, as a peer is told."""

from dataclasses import dataclass
from typing import ClassVar, Self

from crdt.block import MAX_PAYLOAD_BYTES
from crdt.columns import MAX_BLOCK_DELTAS
from crdt.errors import Malformed
from crdt.facts import MAX_SEQ
from crdt.frontier import GENESIS, Head
from crdt.signing import HASH_BYTES
from crdt.wire import Reader, Writer


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """What the speaker has written after its last sealed block: facts that are durable and not signed yet.

    To a peer that knows the speaker from TLS. It believes them of the speaker's replica only, keeps them in
    memory only, and drops them for the next OpenSegment or for the block that seals them.
    """

    TYPE: ClassVar[int] = 12
    MAX_BODY_BYTES: ClassVar[int] = 64 + MAX_PAYLOAD_BYTES

    after: Head  # the speaker's sealed head; Head(0, GENESIS) before the first block
    count: int  # deltas; 0 when everything is sealed
    payload: bytes  # of them, as `columns.encode` makes it; empty for none

    def body(self) -> bytes:
        """Seq varint, hash 32, count u16, payload."""
        return (
            Writer().varint(self.after.seq).raw(self.after.hash).uint(self.count, 2).raw(self.payload).done()
        )

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The message in `body`; the payload is not looked at."""
        reader = Reader(body)
        after = Head(reader.varint(0, MAX_SEQ), reader.raw(HASH_BYTES))
        count = reader.uint(2, 0, MAX_BLOCK_DELTAS)
        payload = reader.rest()
        if bool(count) != bool(payload) or (after.seq == 0) != (after.hash == GENESIS):
            raise Malformed("the open segment does not say what it follows, or what is in it")
        return cls(after, count, payload)
