"""PN532 frames against bytes from the user manual, and against anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware import framing
from hardware.framing import ACK, ERROR_FRAME, NACK, Body, Broken, FrameDecoder, Mark

bodies = st.binary(min_size=1, max_size=framing.MAX_BODY_BYTES)
noise = st.binary(max_size=20).filter(lambda data: b"\x00\xff" not in b"\x00" + data + b"\x00")

GET_FIRMWARE_VERSION = "0000ff02fed4022a00"
FIRMWARE_VERSION = "0000ff06fad50332010607e800"
SAM_CONFIGURATION = "0000ff05fbd41401140102" + "00"
EXTENDED_DIAGNOSE = "0000ffffff0109f6" + "d40000" + bytes(262).hex() + "2c00"


@pytest.mark.parametrize(
    ("frame", "body"),
    [
        (GET_FIRMWARE_VERSION, "d402"),
        (FIRMWARE_VERSION, "d50332010607"),
        (SAM_CONFIGURATION, "d414011401"),
        (EXTENDED_DIAGNOSE, "d40000" + bytes(262).hex()),
        ("0000ff01ff7f8100", "7f"),
    ],
)
def test_frames_are_the_manuals(frame: str, body: str) -> None:
    assert framing.encode(bytes.fromhex(body)).hex() == frame
    assert FrameDecoder().feed(bytes.fromhex(frame)) == [Body(bytes.fromhex(body))]


def test_the_longest_normal_and_the_shortest_extended_frame() -> None:
    assert framing.encode(bytes(255))[:5].hex() == "0000ffff01"
    assert framing.encode(bytes(256))[:8].hex() == "0000ffffff0100ff"


@pytest.mark.parametrize("length", [0, 266])
def test_what_no_frame_can_hold_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="1 to 265"):
        framing.encode(bytes(length))


def test_acknowledgements_and_errors_are_told_apart() -> None:
    assert FrameDecoder().feed(ACK + NACK + ERROR_FRAME) == [Mark.ACK, Mark.NACK, Body(b"\x7f")]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("0000ff02ffd4022a00", "length"),  # LCS
        ("0000ff0000000000", "length"),  # a body of nothing
        ("0000ffffff010af5" + "00" * 8, "length"),  # 266 bytes
        ("0000ffffff010900" + "00" * 8, "length"),  # LCS of an extended frame
        ("0000ff02fed4032a00", "checksum"),  # a flipped bit
    ],
)
def test_damage_is_reported_and_the_next_frame_is_found(frame: str, reason: str) -> None:
    decoder = FrameDecoder()
    (broken,) = decoder.feed(bytes.fromhex(frame))
    assert isinstance(broken, Broken)
    assert reason in broken.reason
    assert decoder.feed(bytes.fromhex(GET_FIRMWARE_VERSION)) == [Body(b"\xd4\x02")]


@given(st.lists(st.tuples(noise, bodies), max_size=4), st.integers(1, 64))
def test_frames_survive_noise_between_them_and_any_chunking(
    parts: list[tuple[bytes, bytes]], size: int
) -> None:
    stream = b"".join(junk + framing.encode(body) for junk, body in parts)
    decoder = FrameDecoder()
    found = [frame for at in range(0, len(stream), size) for frame in decoder.feed(stream[at : at + size])]
    assert found == [Body(body) for _, body in parts]


@given(st.one_of(bodies.map(framing.encode), st.just(ACK), st.just(NACK)))
def test_reading_what_is_missing_never_waits_for_a_byte_too_many(frame: bytes) -> None:
    """Exact-length reads: a read for one byte more would block until the port's time-out."""
    decoder, at = FrameDecoder(), 0
    while at < len(frame):
        missing = decoder.missing
        assert missing <= len(frame) - at
        found = decoder.feed(frame[at : at + missing])
        at += missing
        assert len(found) == (at == len(frame))


@given(st.lists(st.binary(max_size=700), max_size=8))
def test_garbage_is_never_an_exception_and_never_piles_up(chunks: list[bytes]) -> None:
    """Invariant 8: memory stays bounded whatever the line says."""
    decoder = FrameDecoder()
    for chunk in chunks:
        decoder.feed(chunk)
        assert len(decoder._buffer) <= framing.MAX_BODY_BYTES + framing.OVERHEAD_BYTES
        assert 1 <= decoder.missing <= framing.MAX_BODY_BYTES + framing.OVERHEAD_BYTES
