"""Blocks: what is sealed can be verified by anybody, and nothing else passes (invariants 8 and 10)."""

import tracemalloc
from dataclasses import replace
from hashlib import sha256

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from crdt.block import (
    MAX_BLOCK_BYTES,
    MAX_PAYLOAD_BYTES,
    OVERHEAD_BYTES,
    Block,
    Encoding,
    parse,
    seal,
    verify,
)
from crdt.certificate import Limits
from crdt.columns import decode, encode, ids_section
from crdt.errors import (
    BadSignature,
    ForeignFleet,
    InputRefused,
    Malformed,
    MisuseError,
    NotPermitted,
    TooLarge,
    UnknownAuthor,
    Unsupported,
)
from crdt.facts import CardId, Context, Delta, FleetId, Kind
from crdt.frontier import GENESIS
from crdt.signing import BLOCK_TAG, SIGNATURE_BYTES, SigningKey
from tests.crdt.test_columns import BUSY
from tests.crdt.world import FLEET, TERMINALS, Terminal, delta_lists, terminal

AUTHOR = TERMINALS[0]
DELTAS = BUSY[:40]


def resigned(body: bytes) -> bytes:
    """The block that its author makes of any body it likes."""
    return body + AUTHOR.key.sign(BLOCK_TAG + sha256(body).digest())


def with_payload(count: int, encoding: int, payload: bytes) -> Block:
    head = bytearray(seal(AUTHOR.key, FLEET, DELTAS[:1], GENESIS).raw[: OVERHEAD_BYTES - SIGNATURE_BYTES])
    head[-3:] = count.to_bytes(2, "big") + bytes([encoding])
    return parse(resigned(bytes(head) + payload))


@given(delta_lists(), st.booleans())
def test_a_sealed_block_parses_and_verifies_to_its_deltas(deltas: list[Delta], later: bool) -> None:
    previous = b"p" * 32 if later else GENESIS
    if later:
        deltas = [replace(delta, seq=delta.seq + 100) for delta in deltas]
    block = seal(AUTHOR.key, FLEET, deltas, previous)
    assert parse(block.raw) == block
    columns = verify(block, AUTHOR.certificate)
    assert columns.deltas(block.header.replica, block.header.first_seq) == tuple(deltas)
    assert block.head == (deltas[-1].seq, block.hash)
    assert (block.header.count, block.last_seq) == (len(deltas), deltas[-1].seq)
    assert len(block.raw) <= MAX_BLOCK_BYTES


def test_sealing_is_deterministic_and_compresses_only_what_gets_smaller() -> None:
    """Vectors with a raw payload do not depend on the zstd version."""
    small, large = seal(AUTHOR.key, FLEET, DELTAS[:1], GENESIS), seal(AUTHOR.key, FLEET, DELTAS, GENESIS)
    assert (small.encoding, large.encoding) == (Encoding.RAW, Encoding.ZSTD)
    assert small.payload == encode(DELTAS[:1]).data
    parts = encode(DELTAS)
    assert large.payload.startswith(parts.ids), "card ids are never compressed: numbers take their place"
    assert zstandard.decompress(large.payload.removeprefix(parts.ids)) == parts.rest
    assert seal(AUTHOR.key, FLEET, DELTAS, GENESIS) == large


@pytest.mark.parametrize(
    ("deltas", "previous"),
    [
        ([], GENESIS),
        ([DELTAS[0], DELTAS[2]], GENESIS),
        ([replace(DELTAS[0], replica=TERMINALS[1].key.replica)], GENESIS),
        ([DELTAS[0]], b"p" * 32),
        ([DELTAS[1]], GENESIS),
    ],
)
def test_only_consecutive_deltas_of_the_signer_are_sealed(deltas: list[Delta], previous: bytes) -> None:
    with pytest.raises(MisuseError):
        seal(AUTHOR.key, FLEET, deltas, previous)


def test_deltas_that_need_too_many_bytes_are_not_sealed() -> None:
    """What nobody would accept is not made."""
    wide = [replace(delta, context=Context(stop=f"{delta.seq}".ljust(64))) for delta in BUSY]
    with pytest.raises(MisuseError):
        seal(AUTHOR.key, FLEET, wide, GENESIS)


BLOCK = seal(AUTHOR.key, FLEET, DELTAS[:6], GENESIS)


def test_every_truncation_is_refused() -> None:
    for end in range(len(BLOCK.raw)):
        with pytest.raises(InputRefused):
            verify(parse(BLOCK.raw[:end]), AUTHOR.certificate)


def test_every_flipped_bit_is_refused() -> None:
    for bit in range(len(BLOCK.raw) * 8):
        changed = bytearray(BLOCK.raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InputRefused):
            verify(parse(bytes(changed)), AUTHOR.certificate)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    for raw in (data, b"\x01" + FLEET + AUTHOR.key.replica + data):
        with pytest.raises(InputRefused):
            verify(parse(raw), AUTHOR.certificate)


@pytest.mark.parametrize("encoding", Encoding)
@given(rest=st.binary(max_size=300), ids=st.booleans(), count=st.integers(1, 4096))
def test_a_hostile_authors_payload_is_refused_or_canonical(
    encoding: Encoding, rest: bytes, ids: bool, count: int
) -> None:
    """Enrolled authors are not trusted either: a good signature over garbage is still garbage."""
    if encoding is Encoding.ZSTD and ids:
        rest = zstandard.compress(rest)
    try:
        columns = verify(with_payload(count, encoding, (IDS if ids else b"") + rest), AUTHOR.certificate)
    except InputRefused:
        return
    assert decode(encode(columns.deltas(AUTHOR.key.replica, 1)).data, count) == columns


def zstd_frame(data: bytes, *, declare: int | None = None) -> bytes:
    if declare is None:
        return zstandard.ZstdCompressor(write_content_size=False).compress(data)
    frame = zstandard.ZstdCompressor(level=19).compress(data)
    assert frame[4] == 0x80, "magic 4 bytes, this descriptor, window 1 byte, content size 4 bytes"
    return frame[:6] + declare.to_bytes(4, "little") + frame[10:]


BOMB = bytes(64 * 1024 * 1024)
IDS = ids_section([CardId(bytes(7))])


@pytest.mark.parametrize(
    ("rest", "error"),
    [
        pytest.param(zstandard.compress(BOMB), TooLarge, id="64 MiB declared"),
        pytest.param(zstd_frame(BOMB), TooLarge, id="64 MiB undeclared"),
        pytest.param(zstd_frame(BOMB, declare=1000), Malformed, id="64 MiB declared as 1000 bytes"),
        pytest.param(zstd_frame(BOMB, declare=2**32 - 2), TooLarge, id="4 GiB declared"),
        pytest.param(
            zstandard.compress(bytes(MAX_PAYLOAD_BYTES - len(IDS) + 1)), TooLarge, id="one byte too many"
        ),
        pytest.param(
            zstandard.compress(bytes(MAX_PAYLOAD_BYTES - len(IDS))), Malformed, id="nothing but zeros"
        ),
        pytest.param(zstandard.compress(bytes(1000)) + b"\0", Malformed, id="bytes after the frame"),
        pytest.param(zstandard.compress(bytes(1000)) * 2, Malformed, id="two frames"),
        pytest.param(b"\x50\x2a\x4d\x18\x04\0\0\0abcd", InputRefused, id="a skippable frame"),
        pytest.param(zstandard.compress(bytes(1000))[:-3], Malformed, id="cut short"),
        pytest.param(b"not zstd", Malformed, id="not zstd"),
    ],
)
def test_zstd_bombs_are_refused_within_bounded_memory(rest: bytes, error: type[InputRefused]) -> None:
    """Signed by an enrolled author; no more memory is taken than a payload may have, card ids included."""
    block = with_payload(1, Encoding.ZSTD, (IDS + rest)[: MAX_BLOCK_BYTES - OVERHEAD_BYTES])
    tracemalloc.start()
    try:
        with pytest.raises(error):
            verify(block, AUTHOR.certificate)
        assert tracemalloc.get_traced_memory()[1] < 2 * MAX_PAYLOAD_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        pytest.param(0, b"\x02", Unsupported, id="another version"),
        pytest.param(33, b"p" * 32, Malformed, id="a first block that follows something"),
        pytest.param(65, (2).to_bytes(8, "big"), Malformed, id="a later block that follows nothing"),
        pytest.param(65, bytes(8), Malformed, id="number 0"),
        pytest.param(65, b"\xff" * 8, Malformed, id="numbers out of range"),
        pytest.param(73, bytes(2), Malformed, id="no deltas"),
        pytest.param(73, (4097).to_bytes(2, "big"), Malformed, id="too many deltas"),
        pytest.param(75, b"\x02", Malformed, id="an unknown encoding"),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused(at: int, value: bytes, error: type[InputRefused]) -> None:
    changed = BLOCK.raw[:at] + value + BLOCK.raw[at + len(value) :]
    with pytest.raises(error):
        parse(changed)


def test_a_block_larger_than_any_is_refused_unread() -> None:
    with pytest.raises(TooLarge):
        parse(bytes(MAX_BLOCK_BYTES + 1))


def test_only_the_author_and_only_in_its_fleet() -> None:
    with pytest.raises(UnknownAuthor):
        verify(BLOCK, TERMINALS[1].certificate)
    with pytest.raises(ForeignFleet):
        verify(BLOCK, replace(AUTHOR.certificate, fleet=FleetId(bytes(16))))
    forged = seal(TERMINALS[1].key, FLEET, [replace(DELTAS[0], replica=TERMINALS[1].key.replica)], GENESIS)
    stolen = parse(forged.raw[:17] + AUTHOR.key.replica + forged.raw[33:])
    with pytest.raises(BadSignature):
        verify(stolen, AUTHOR.certificate)


@pytest.mark.parametrize(
    ("kind", "amount", "allowed"),
    [
        (Kind.FARE, -500, True),
        (Kind.FARE, -501, False),
        (Kind.TOPUP, 1000, True),
        (Kind.TOPUP, 1001, False),
        (Kind.OPENING, 0, False),
        (Kind.ADJUSTMENT, -1, False),
    ],
)
def test_invariant_10_an_author_writes_only_what_its_certificate_allows(
    kind: Kind, amount: int, allowed: bool
) -> None:
    """A terminal cannot mint credit beyond its enrolment, whoever judges the block."""
    clerk: Terminal = terminal(9, Limits(frozenset({Kind.FARE, Kind.TOPUP}), 1000, 500))
    block = clerk.blocks([Delta(clerk.key.replica, 1, CardId(bytes(7)), kind, amount, 0)], [])[0]
    if allowed:
        assert verify(block, clerk.certificate).money == ((kind, amount),)
    else:
        with pytest.raises(NotPermitted):
            verify(block, clerk.certificate)


def test_a_signing_key_needs_a_whole_seed() -> None:
    with pytest.raises(MisuseError):
        SigningKey(b"short")
