"""The messages of a sync session, and each as one frame: type u8, body length u32, body.

Sealed things (certificates, blocks, pages, documents) travel as the bytes they were signed as. A frame only
bounds their size; whoever uses one parses and verifies it, so that one bad block is refused and not the
session.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self, get_args

from crdt.block import MAX_BLOCK_BYTES
from crdt.certificate import MAX_CERTIFICATE_BYTES
from crdt.documents import MAX_SIGNED_DOCUMENT_BYTES
from crdt.errors import InputRefused, Malformed, MisuseError, RefusalCode, TooLarge
from crdt.facts import ID_BYTES, FleetId, ReplicaId
from crdt.frontier import Frontier, read_frontier, write_frontier
from crdt.protocol import PROTOCOL_VERSION
from crdt.settlement import (
    MAX_PAGE_BYTES,
    MAX_POSITION,
    NO_SERIES,
    SERIES_BYTES,
    START,
    Cursor,
    read_cursor,
    write_cursor,
)
from crdt.wire import Reader, Writer

_HEADER: Final = struct.Struct(">BI")
FRAME_HEADER_BYTES: Final = _HEADER.size
MAX_FRAME_BYTES: Final = 1024 * 1024  # header included
MAX_EXCHANGE_BYTES: Final = 4 * 1024 * 1024  # one session, one way
MAX_EXCHANGE_FRAMES: Final = 8192
MAX_STATUS_BYTES: Final = 4096
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
class Status:
    """What a terminal says of itself, for the operator: names and JSON values. Never decides anything."""

    TYPE: ClassVar[int] = 2
    MAX_BODY_BYTES: ClassVar[int] = MAX_STATUS_BYTES

    values: Mapping[str, object]

    def body(self) -> bytes:
        """A JSON object in UTF-8, at most MAX_STATUS_BYTES."""
        try:
            return _json(dict(self.values))
        except (TypeError, ValueError) as error:
            raise MisuseError("a status is made of JSON values") from error

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The message in `body`. Malformed unless it is a JSON object of 64-bit integers and real text."""
        try:
            values = json.loads(body.decode(), parse_int=_int64)
            _json(values)  # refuses infinities, and half surrogate pairs, which no database takes
        except (ValueError, RecursionError) as error:
            raise Malformed("a status is not JSON") from error
        if not isinstance(values, dict):
            raise Malformed("a status is not a JSON object")
        return cls(values)


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
class Pull:
    """A terminal asks for settlement pages, from where it stands, and for a newer fleet document."""

    TYPE: ClassVar[int] = 5
    MAX_BODY_BYTES: ClassVar[int] = 64

    series: bytes = NO_SERIES  # of the installed (or half staged) settlement
    base: int = 0  # the installed position
    after: Cursor = START  # the last cursor staged
    document_version: int = 0  # of the fleet document held, 0 for none

    def body(self) -> bytes:
        """Series 16, base varint, cursor, document version varint."""
        writer = Writer().raw(self.series).varint(self.base)
        write_cursor(writer, self.after)
        return writer.varint(self.document_version).done()

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The message in `body`."""
        reader = Reader(body)
        series, base, after = reader.raw(SERIES_BYTES), reader.varint(0, MAX_POSITION), read_cursor(reader)
        pull = cls(series, base, after, reader.varint(0, MAX_POSITION))
        reader.end()
        return pull


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


Message = Hello | Status | CertificateFrame | BlockFrame | Pull | Ack | PageFrame | DocumentFrame | Refusal
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


def _json(values: object) -> bytes:
    text = json.dumps(values, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def _int64(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError("an integer is too large")
    return value
