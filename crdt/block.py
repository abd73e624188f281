"""A block: a sealed run of one replica's deltas, chained to the one before and signed by its author.

    version u8 = 1 | fleet 16 | replica 16 | previous 32 | first_seq u64 | count u16 | encoding u8
    | card ids | the rest of the payload | signature 64

The signature covers BLOCK_TAG and the SHA-256 of everything before it; that SHA-256 is the block's hash,
and the next block carries it as `previous`. The payload is that of columns.py: the section of its card ids
as it is, then the rest, raw or as one zstd frame, whichever is shorter.
"""

import hashlib
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import zstandard

from crdt.certificate import AuthorCertificate
from crdt.columns import MAX_BLOCK_DELTAS, Columns, Payload, decode_rest, encode, read_ids
from crdt.errors import (
    BadSignature,
    ForeignFleet,
    Malformed,
    MisuseError,
    NotPermitted,
    TooLarge,
    UnknownAuthor,
    Unsupported,
)
from crdt.facts import MAX_SEQ, Delta, FleetId, ReplicaId
from crdt.frontier import GENESIS, Head
from crdt.signing import BLOCK_TAG, SIGNATURE_BYTES, SigningKey
from crdt.signing import verify as signed_by
from crdt.wire import Reader

VERSION: Final = 1
NOMINAL_BLOCK_DELTAS: Final = 250  # what a terminal seals at; the signature is then 0.26 bytes a delta
MAX_PAYLOAD_BYTES: Final = 256 * 1024  # decompressed
ZSTD_LEVEL: Final = 9
HEADER: Final = struct.Struct(">B16s16s32sQHB")  # the fields above, up to the encoding
OVERHEAD_BYTES: Final = HEADER.size + SIGNATURE_BYTES
MAX_BLOCK_BYTES: Final = OVERHEAD_BYTES + MAX_PAYLOAD_BYTES


class Encoding(IntEnum):
    """How the payload is stored, except for its card ids."""

    RAW = 0
    ZSTD = 1


@dataclass(frozen=True, slots=True)
class Header:
    """What a block says of itself."""

    fleet: FleetId
    replica: ReplicaId
    first_seq: int
    count: int
    previous: bytes  # hash of the block that ends at first_seq - 1; GENESIS for the first

    @property
    def last_seq(self) -> int:
        """The number of the block's last delta."""
        return self.first_seq + self.count - 1


@dataclass(frozen=True, slots=True)
class Block:
    """A block's parts, as `parse` or `seal` found them. Believe the payload only after `verify`."""

    header: Header
    encoding: Encoding
    payload: bytes  # as stored
    signature: bytes
    hash: bytes  # SHA-256 of `raw` without the signature
    raw: bytes

    @property
    def head(self) -> Head:
        """The head of the replica's chain when this block is its last."""
        return Head(self.header.last_seq, self.hash)

    @property
    def last_seq(self) -> int:
        """The number of the block's last delta."""
        return self.header.last_seq


def seal(key: SigningKey, fleet: FleetId, deltas: Sequence[Delta], previous: bytes) -> Block:
    """The block of these deltas, 1 to MAX_BLOCK_DELTAS, numbered without a gap, all by `key`'s replica.

    `previous` is the hash of the replica's last block, or GENESIS. Raises MisuseError when they do not fit.
    """
    if not deltas or any(
        delta.replica != key.replica or delta.seq != seq for seq, delta in enumerate(deltas, deltas[0].seq)
    ):
        raise MisuseError("a block is sealed from consecutive deltas of the signing replica")
    if (previous == GENESIS) != (deltas[0].seq == 1):
        raise MisuseError("a replica's first block, and only that, starts at 1 and follows GENESIS")
    encoding, payload = _pack(encode(deltas))
    body = HEADER.pack(VERSION, fleet, key.replica, previous, deltas[0].seq, len(deltas), encoding) + payload
    return parse(body + key.sign(BLOCK_TAG + hashlib.sha256(body).digest()))


def claim_of(raw: bytes) -> tuple[ReplicaId, int] | None:
    """Whose a block, or a short block, says it is, and of how many deltas; None for what is too short.

    Costs nothing, and proves nothing: a block with another count or author than its own is refused later.
    """
    if len(raw) < HEADER.size:
        return None
    _, _, replica, _, _, count, _ = HEADER.unpack_from(raw)
    return ReplicaId(replica), count


def parse(raw: bytes) -> Block:
    """The parts of a block; nothing is verified yet. Raises Malformed, TooLarge or Unsupported."""
    if len(raw) > MAX_BLOCK_BYTES:
        raise TooLarge(f"a block has at most {MAX_BLOCK_BYTES} bytes")
    if len(raw) <= OVERHEAD_BYTES:
        raise Malformed("the block is cut short")
    version, fleet, replica, previous, first_seq, count, encoding = HEADER.unpack_from(raw)
    if version != VERSION:
        raise Unsupported("the block has a version this program does not know")
    if (
        not 1 <= count <= MAX_BLOCK_DELTAS
        or not 1 <= first_seq <= MAX_SEQ + 1 - count
        or encoding > Encoding.ZSTD
    ):
        raise Malformed("a number in the block's header is out of range")
    if (previous == GENESIS) != (first_seq == 1):
        raise Malformed("a replica's first block, and only that, starts at 1 and follows nothing")
    body = raw[:-SIGNATURE_BYTES]
    header = Header(fleet, replica, first_seq, count, previous)
    digest = hashlib.sha256(body).digest()
    return Block(header, Encoding(encoding), body[HEADER.size :], raw[-SIGNATURE_BYTES:], digest, raw)


def verify(block: Block, certificate: AuthorCertificate) -> Columns:
    """The facts of a block whose author is certified (a verified certificate).

    Raises ForeignFleet, UnknownAuthor, BadSignature, Malformed, TooLarge, Unsupported or NotPermitted. The
    chain is the ledger's to check: a block does not know what came before it.
    """
    if block.header.fleet != certificate.fleet:
        raise ForeignFleet("the block belongs to another fleet")
    if block.header.replica != certificate.replica:
        raise UnknownAuthor("the certificate is not that of the block's author")
    if not signed_by(certificate.public_key, block.signature, BLOCK_TAG + block.hash):
        raise BadSignature("the block is not signed by its author")
    columns = contents(block)
    for kind, amount_minor in columns.money:
        if not certificate.permits(kind, amount_minor):
            raise NotPermitted(
                f"{certificate.name or 'the author'} may not write a {kind.name} of {amount_minor}"
            )
    return columns


def contents(block: Block) -> Columns:
    """The facts of a block whoever signed it: for blocks of our own store, which takes only verified ones.

    Raises Malformed, TooLarge or Unsupported.
    """
    reader = Reader(block.payload)
    ids = read_ids(reader, block.header.count)
    ids_bytes = reader.at
    return decode_rest(ids, _unpacked(block.encoding, reader.rest(), ids_bytes), block.header.count)


def _pack(payload: Payload) -> tuple[Encoding, bytes]:
    data = payload.rest
    if len(payload.ids) + len(data) > MAX_PAYLOAD_BYTES:
        raise MisuseError(
            f"the deltas of one block need more than {MAX_PAYLOAD_BYTES} bytes; seal fewer of them"
        )
    # Flushing after the noise gives the rest its own statistics: smaller blocks, still one plain zstd frame.
    packer = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj(size=len(data))
    packed = packer.compress(data[: payload.noise_bytes]) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    packed += packer.compress(data[payload.noise_bytes :]) + packer.flush()
    if len(packed) < len(data):
        return Encoding.ZSTD, payload.ids + packed
    return Encoding.RAW, payload.data


def _unpacked(encoding: Encoding, rest: bytes, ids_bytes: int) -> bytes:
    if encoding is Encoding.RAW:
        return rest
    try:
        size = zstandard.frame_content_size(rest)  # read before memory is set aside for it
        if not 0 <= size <= MAX_PAYLOAD_BYTES - ids_bytes:
            raise TooLarge(f"a block's payload declares its size, at most {MAX_PAYLOAD_BYTES} bytes")
        return _UNPACKER.zstd.decompress(rest, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Malformed("the block's payload does not decompress") from error


class _Unpacker(threading.local):
    """A decompressor for each thread: it cannot be shared, and making one takes longer than using it."""

    def __init__(self) -> None:
        self.zstd = zstandard.ZstdDecompressor()


_UNPACKER: Final = _Unpacker()
