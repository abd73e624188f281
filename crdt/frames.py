"""The messages of a sync session, and each as one frame: type u8, body length u32, body.

Sealed things (certificates, blocks, pages, documents) travel as the bytes they were signed as. A frame only
bounds their size; whoever uses one parses and verifies it, so that one bad block is refused and not the
session.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self, get_args

from crdt.block import MAX_BLOCK_BYTES
from crdt.certificate import MAX_CERTIFICATE_BYTES
from crdt.documents import MAX_SIGNED_DOCUMENT_BYTES
from crdt.errors import InputRefused, Malformed, MisuseError, RefusalCode, TooLarge
from crdt.facts import ID_BYTES, MAX_SEQ, FleetId, ReplicaId
from crdt.frontier import MAX_FRONTIER, Frontier, read_frontier, write_frontier
from crdt.open_segment import OpenSegment
from crdt.protocol import MAX_PAGE_BYTES, PROTOCOL_VERSION
from crdt.pull import Pull
from crdt.terminal_status import Status
from crdt.wire import Reader, Writer

_HEADER: Final = struct.Struct(">BI")
FRAME_HEADER_BYTES: Final = _HEADER.size
MAX_FRAME_BYTES: Final = 1024 * 1024  # header included
MAX_EXCHANGE_BYTES: Final = 4 * 1024 * 1024  # one session, one way
MAX_EXCHANGE_FRAMES: Final = 8192
MAX_EXCHANGE_DELTAS: Final = 65_536  # in the blocks of one exchange: a month of a bus is 37,500
MAX_REFUSAL_BYTES: Final = 1 + 512
_MAX_FRONTIER_BYTES: Final = MAX_FRAME_BYTES - FRAME_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message each way: who speaks, and how far the speaker has (the replicas that matter here)."""

    TYPE: ClassVar[int] = 1
    MAX_BODY_BYTES: ClassVar[int] = _MAX_FRONTIER_BYTES

    fleet: FleetId
    replica: ReplicaId
    frontier: Frontier = field(default_factory=dict)
    protocol: int = PROTOCOL_VERSION

    def body(self) -> bytes:
        """Protocol u8, fleet 16, replica 16, frontier."""
        writer = Writer().uint(self.protocol, 1).raw(self.fleet).raw(self.replica)
        write_frontier(writer, self.frontier)
        return writer.done()

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The message in `body`. What follows the replica is not read when the protocol is another."""
        reader = Reader(body)
        protocol = reader.uint(1)
        fleet, replica = FleetId(reader.raw(ID_BYTES)), ReplicaId(reader.raw(ID_BYTES))
        if protocol != PROTOCOL_VERSION:
            return cls(fleet, replica, {}, protocol)
        frontier = read_frontier(reader)
        reader.end()
        return cls(fleet, replica, frontier, protocol)


@dataclass(frozen=True, slots=True)
class _Sealed:
    raw: bytes

    def body(self) -> bytes:
        """The sealed bytes."""
        return self.raw

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The message in `body`."""
        return cls(body)


@dataclass(frozen=True, slots=True)
class CertificateFrame(_Sealed):
    """An author's certificate, as bytes: `AuthorCertificate.decode(raw)`."""

    TYPE: ClassVar[int] = 3
    MAX_BODY_BYTES: ClassVar[int] = MAX_CERTIFICATE_BYTES


@dataclass(frozen=True, slots=True)
class BlockFrame(_Sealed):
    """A sealed block, as bytes: `block.parse(raw)`."""

    TYPE: ClassVar[int] = 4
    MAX_BODY_BYTES: ClassVar[int] = MAX_BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Ack:
    """These heads are held and durable here, of the replicas whose blocks came in this exchange."""

    TYPE: ClassVar[int] = 6
    MAX_BODY_BYTES: ClassVar[int] = _MAX_FRONTIER_BYTES

    frontier: Frontier

    def body(self) -> bytes:
        """The frontier."""
        writer = Writer()
        write_frontier(writer, self.frontier)
        return writer.done()

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The message in `body`."""
        reader = Reader(body)
        ack = cls(read_frontier(reader))
        reader.end()
        return ack


@dataclass(frozen=True, slots=True)
class PageFrame(_Sealed):
    """A settlement page, as bytes: `settlement.parse_page(raw)`."""

    TYPE: ClassVar[int] = 7
    MAX_BODY_BYTES: ClassVar[int] = MAX_PAGE_BYTES


@dataclass(frozen=True, slots=True)
class DocumentFrame(_Sealed):
    """A signed document, as bytes: `SignedDocument.decode(raw)`."""

    TYPE: ClassVar[int] = 8
    MAX_BODY_BYTES: ClassVar[int] = MAX_SIGNED_DOCUMENT_BYTES


@dataclass(frozen=True, slots=True)
class Refusal:
    """The speaker refused something it received: why, and a sentence for a person."""

    TYPE: ClassVar[int] = 9
    MAX_BODY_BYTES: ClassVar[int] = MAX_REFUSAL_BYTES

    code: RefusalCode
    text: str

    @classmethod
    def of(cls, error: InputRefused) -> Self:
        """The refusal that tells of `error`."""
        return cls(error.code, str(error))

    def body(self) -> bytes:
        """Code u8, and the sentence in UTF-8, cut to what fits."""
        return bytes([self.code]) + self.text.encode(errors="replace")[: MAX_REFUSAL_BYTES - 1]

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The message in `body`; a sentence is only for eyes, so what is not text in it is replaced."""
        reader = Reader(body)
        code = RefusalCode(reader.uint(1, min(RefusalCode), max(RefusalCode)))
        text = reader.rest().decode(errors="replace")
        return cls(code, "".join(character if character.isprintable() else "\ufffd" for character in text))


@dataclass(frozen=True, slots=True)
class ShortBlockFrame(_Sealed):
    """A block with its cards as numbers: `numbering.restore(raw, …)`. To whoever gave the numbers."""

    TYPE: ClassVar[int] = 10
    MAX_BODY_BYTES: ClassVar[int] = MAX_BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Want:
    """The speaker asks for certificates and blocks: of each replica here, what is held beyond its head.

    `others`: of replicas that are not named too. A replica named with seq 0 is wanted from the beginning.
    """

    TYPE: ClassVar[int] = 11
    MAX_BODY_BYTES: ClassVar[int] = _MAX_FRONTIER_BYTES

    after: Mapping[ReplicaId, int]
    others: bool = False

    def body(self) -> bytes:
        """Others u8 (0 or 1), count varint, then by ascending replica id: replica 16, seq varint."""
        writer = Writer().uint(self.others, 1).varint(len(self.after))
        for replica in sorted(self.after):
            writer.raw(replica).varint(self.after[replica])
        return writer.done()

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The message in `body`. Malformed when out of order, TooLarge past MAX_FRONTIER."""
        reader = Reader(body)
        others, size = bool(reader.uint(1, 0, 1)), reader.varint()
        if size > MAX_FRONTIER:
            raise TooLarge(f"at most {MAX_FRONTIER} replicas can be asked for")
        after: dict[ReplicaId, int] = {}
        last = b""
        for _ in range(size):
            replica = ReplicaId(reader.raw(ID_BYTES))
            if replica <= last:
                raise Malformed("the replicas asked for are not in ascending order")
            after[replica] = reader.varint(0, MAX_SEQ)
            last = replica
        reader.end()
        return cls(after, others)


@dataclass(frozen=True, slots=True)
class Heads:
    """The speaker knows of blocks up to these heads, whether it holds them or not.

    A terminal tells a restored hub which heads its settlement had included. At the end of a courier file:
    everything in it goes up to here, and nothing of it is missing.
    """

    TYPE: ClassVar[int] = 13
    MAX_BODY_BYTES: ClassVar[int] = _MAX_FRONTIER_BYTES

    frontier: Frontier

    def body(self) -> bytes:
        """The frontier."""
        writer = Writer()
        write_frontier(writer, self.frontier)
        return writer.done()

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The message in `body`."""
        reader = Reader(body)
        heads = cls(read_frontier(reader))
        reader.end()
        return heads


Message = (
    Hello
    | Status
    | CertificateFrame
    | BlockFrame
    | Pull
    | Ack
    | PageFrame
    | DocumentFrame
    | Refusal
    | ShortBlockFrame
    | Want
    | OpenSegment
    | Heads
)
MESSAGES: Final[tuple[type[Message], ...]] = get_args(Message)
_BY_TYPE: Final = {message.TYPE: message for message in MESSAGES}


def encode_frame(message: Message) -> bytes:
    """The frame of a message. Raises MisuseError when it is too large for its type."""
    body = message.body()
    if len(body) > message.MAX_BODY_BYTES:
        raise MisuseError(f"a {type(message).__name__} has at most {message.MAX_BODY_BYTES} bytes")
    return _HEADER.pack(message.TYPE, len(body)) + body


def frame_type(header: bytes) -> tuple[type[Message], int]:
    """The message type and body length that FRAME_HEADER_BYTES announce. Raises Malformed or TooLarge."""
    type_number, length = _HEADER.unpack(header)
    message_type = _BY_TYPE.get(type_number)
    if message_type is None:
        raise Malformed(f"there is no message of type {type_number}")
    if length > message_type.MAX_BODY_BYTES:
        raise TooLarge(f"a {message_type.__name__} has at most {message_type.MAX_BODY_BYTES} bytes")
    return message_type, length
