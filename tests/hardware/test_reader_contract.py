"""What every Reader promises, on every bus: the real driver against the emulated chip."""

from collections.abc import Iterator

import pytest

from hardware.cards import PresentedCard
from hardware.errors import CardGone, CardRefused
from hardware.reader import FirmwareVersion
from tests.hardware.benches import BUSES, Bench, bench

ISO_DEP = "iso14443a:04112233445566:0344:20:067577810280"

CARDS = {
    "ntag213:04A1B2C3D4E5F6": PresentedCard(bytes.fromhex("04A1B2C3D4E5F6"), b"\x00\x44", 0x00),
    "ntag215:04A1B2C3D4E5F6": PresentedCard(bytes.fromhex("04A1B2C3D4E5F6"), b"\x00\x44", 0x00),
    "ntag216:04A1B2C3D4E5F6": PresentedCard(bytes.fromhex("04A1B2C3D4E5F6"), b"\x00\x44", 0x00),
    "ultralight:04A1B2C3D4E5F6": PresentedCard(bytes.fromhex("04A1B2C3D4E5F6"), b"\x00\x44", 0x00),
    "ultralight-ev1:04A1B2C3D4E5F6": PresentedCard(bytes.fromhex("04A1B2C3D4E5F6"), b"\x00\x44", 0x00),
    "classic:DEADBEEF": PresentedCard(bytes.fromhex("DEADBEEF"), b"\x00\x04", 0x08),
    "classic4k:04A1B2C3D4E5F6": PresentedCard(bytes.fromhex("04A1B2C3D4E5F6"), b"\x00\x42", 0x18),
    ISO_DEP: PresentedCard(bytes.fromhex("04112233445566"), b"\x03\x44", 0x20, bytes.fromhex("067577810280")),
    "iso14443a:0102030405060708090A:0084:00": PresentedCard(
        bytes.fromhex("0102030405060708090A"), b"\x00\x84", 0x00
    ),
}


@pytest.fixture(params=BUSES)
def on(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with bench(request.param) as built:
        yield built


def test_open_tells_the_firmware(on: Bench) -> None:
    assert on.reader.open() == FirmwareVersion(0x32, 1, 6, 7)
    assert str(on.reader.open()) == "PN532 v1.6"


def test_an_empty_field_is_none_and_the_poll_ends(on: Bench) -> None:
    on.reader.open()
    assert on.reader.poll(0.05) is None
    assert on.reader.poll(0) is None


@pytest.mark.parametrize("spec", CARDS)
def test_a_card_is_reported_as_it_is(on: Bench, spec: str) -> None:
    on.reader.open()
    on.present(spec)
    assert on.reader.poll(1) == CARDS[spec]


def test_a_card_that_comes_during_the_poll_is_returned_by_it(on: Bench) -> None:
    on.reader.open()
    on.clock.at_look[on.clock.looks + 4] = lambda: on.present("classic:DEADBEEF")
    assert on.reader.poll(1000) == CARDS["classic:DEADBEEF"]


@pytest.mark.parametrize("spec", ["ntag215:04A1B2C3D4E5F6", "classic:DEADBEEF", ISO_DEP])
def test_a_card_that_stays_is_found_by_every_poll_and_a_removed_one_by_none(on: Bench, spec: str) -> None:
    on.reader.open()
    on.present(spec)
    assert [on.reader.poll(1) for _ in range(3)] == [CARDS[spec]] * 3
    on.remove()
    assert on.reader.poll(0.05) is None


def test_type_2_commands_pass_both_ways(on: Bench) -> None:
    on.reader.open()
    on.present("ntag215:04A1B2C3D4E5F6")
    on.reader.poll(1)
    assert on.reader.transceive(b"\x60", 0.5).hex() == "0004040201001103"
    assert on.reader.transceive(b"\x30\x00", 0.5).hex() == "04a1b29fc3d4e5f604480000e1103e00"
    assert on.reader.transceive(b"\xa2\x04FARE", 0.5) == b""
    assert on.reader.transceive(b"\x30\x04", 0.5)[:4] == b"FARE"


def test_a_long_answer_fills_an_extended_frame(on: Bench) -> None:
    """FAST_READ of 65 pages is 260 bytes, which no normal frame holds."""
    on.reader.open()
    on.present("ntag215:04A1B2C3D4E5F6")
    on.reader.poll(1)
    assert len(on.reader.transceive(b"\x3a\x00\x40", 0.5)) == 260


def test_iso_14443_4_cards_answer_apdus(on: Bench) -> None:
    on.reader.open()
    on.present(ISO_DEP)
    on.reader.poll(1)
    assert on.reader.transceive(bytes.fromhex("00a4040007d276000085010100"), 0.5) == b"\x6d\x00"
    assert on.reader.transceive(bytes(262), 0.5) == b"\x6d\x00"


def test_a_refusal_by_the_card_is_typed(on: Bench) -> None:
    on.reader.open()
    on.present("ntag215:04A1B2C3D4E5F6")
    on.reader.poll(1)
    with pytest.raises(CardRefused):
        on.reader.transceive(b"\x30\xff", 0.5)
    assert on.reader.poll(1) is not None


def test_a_classic_card_refuses_a_wrong_key(on: Bench) -> None:
    on.reader.open()
    on.present("classic:DEADBEEF")
    on.reader.poll(1)
    with pytest.raises(CardRefused):
        on.reader.transceive(b"\x60\x04" + b"\xa0" * 6 + bytes.fromhex("DEADBEEF"), 0.5)


def test_a_card_that_left_is_typed(on: Bench) -> None:
    on.reader.open()
    with pytest.raises(CardGone):
        on.reader.transceive(b"\x60", 0.5)
    on.present("ntag215:04A1B2C3D4E5F6")
    on.reader.poll(1)
    on.remove()
    with pytest.raises(CardGone):
        on.reader.transceive(b"\x60", 0.5)


@pytest.mark.parametrize("command", [b"", bytes(263)])
def test_a_command_no_frame_can_hold_is_a_bug_of_the_caller(on: Bench, command: bytes) -> None:
    on.reader.open()
    on.present("ntag215:04A1B2C3D4E5F6")
    on.reader.poll(1)
    with pytest.raises(ValueError, match="1 to 262 bytes"):
        on.reader.transceive(command, 0.5)


def test_closing_twice_and_opening_again(on: Bench) -> None:
    on.reader.close()
    on.reader.open()
    on.reader.close()
    on.reader.close()
    on.present("classic:DEADBEEF")
    on.reader.open()
    assert on.reader.poll(1) == CARDS["classic:DEADBEEF"]
