"""The emulated cards against their datasheets and the standard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.cards import PresentedCard
from hardware.emulator.air import ACK, NAK, Air, crc_a, with_crc, without_crc
from hardware.emulator.card import Card, Silent
from hardware.emulator.classic import TRANSPORT_KEY
from hardware.emulator.isodep import FRAME_SIZES, CardBlocks, ReaderBlocks
from hardware.emulator.specs import KINDS, parse_card
from hardware.errors import BadSpec

UID = "04A1B2C3D4E5F6"


def _selected(spec: str) -> Card:
    """The card in its ACTIVE state, brought there over the air."""
    card = parse_card(spec)
    assert card.receive(Air(b"\x26", 7)) == Air(card.presented.atqa[::-1])
    for code in (0x93, 0x95, 0x97):
        level = card.receive(Air(bytes((code, 0x20))))
        assert level is not None
        sak = card.receive(with_crc(bytes((code, 0x70)) + level.data))
        assert sak is not None
        if without_crc(sak) != b"\x04":
            return card
    raise AssertionError("the UID has no end")


def _ask(card: Card, command: str) -> str:
    """The answer in hex, CRC checked and removed; "ack", "nak" or "" for silence."""
    answer = card.receive(with_crc(bytes.fromhex(command)))
    if answer is None:
        return ""
    if answer.last_bits:
        return {ACK: "ack", NAK: "nak"}[answer]
    data = without_crc(answer)
    assert data is not None
    return data.hex()


@pytest.mark.parametrize(("data", "crc"), [("0000", "a01e"), ("1234", "26cf")])
def test_crc_a_vectors(data: str, crc: str) -> None:
    """ISO/IEC 14443-3 annex B."""
    assert crc_a(bytes.fromhex(data)).hex() == crc


@pytest.mark.parametrize(
    ("kind", "pages", "capability", "version", "after_user"),
    [
        ("ntag213", 45, "e1101200", "0004040201000f03", {40: "000000bd", 41: "040000ff", 42: "00050000"}),
        ("ntag215", 135, "e1103e00", "0004040201001103", {130: "000000bd", 131: "040000ff", 132: "00050000"}),
        ("ntag216", 231, "e1106d00", "0004040201001303", {226: "000000bd", 227: "040000ff", 228: "00050000"}),
        ("ultralight-ev1", 20, "00000000", "0004030101000b03", {16: "000000ff", 17: "00050000"}),
    ],
)
def test_memory_as_delivered(
    kind: str, pages: int, capability: str, version: str, after_user: dict[int, str]
) -> None:
    card = _selected(f"{kind}:{UID}")
    assert _ask(card, "60") == version
    everything = _ask(card, f"3a00{pages - 1:02x}")
    assert len(everything) == pages * 8
    assert everything[:32] == "04a1b29f" + "c3d4e5f6" + "04480000" + capability
    for page, content in after_user.items():
        assert everything[page * 8 : page * 8 + 8] == content
    assert _ask(card, f"3a00{pages:02x}") == "nak"


def test_reading_wraps_at_the_end_of_the_memory() -> None:
    assert _ask(_selected(f"ultralight:{UID}"), "300e") == "00" * 8 + "04a1b29fc3d4e5f6"


def test_the_first_ultralight_knows_no_version() -> None:
    assert _ask(_selected(f"ultralight:{UID}"), "60") == ""


def test_lock_and_otp_bits_can_be_set_and_not_cleared() -> None:
    card = _selected(f"ntag215:{UID}")
    assert _ask(card, "a203 00000001") == "ack"
    assert _ask(card, "a203 00000000") == "ack"
    assert _ask(card, "3003")[:8] == "e1103e01"
    assert _ask(card, "a204 01020304") == "ack"
    assert _ask(card, "a202 ffff 1000") == "ack"
    assert _ask(card, "3002")[:8] == "04481000"
    assert _ask(card, "a204 05060708") == "nak"
    assert _ask(_again(card), "3004")[:8] == "01020304"


@pytest.mark.parametrize("page", ["00", "01", "87", "ff"])
def test_what_cannot_be_written(page: str) -> None:
    assert _ask(_selected(f"ntag215:{UID}"), f"a2{page}00000000") == "nak"


def test_compatibility_write() -> None:
    card = _selected(f"ultralight:{UID}")
    assert _ask(card, "a004") == "ack"
    assert _ask(card, "01020304" + "ff" * 12) == "ack"
    assert _ask(card, "3004")[:16] == "01020304" + "00000000"


def test_a_refused_command_ends_the_selection() -> None:
    card = _selected(f"ntag215:{UID}")
    assert _ask(card, "30ff") == "nak"
    assert _ask(card, "3000") == ""


@pytest.mark.parametrize(("kind", "blocks"), [("classic", 64), ("classic4k", 256)])
def test_classic_sectors_open_with_their_key(kind: str, blocks: int) -> None:
    card = _selected(f"{kind}:DEADBEEF")
    assert card.authenticate(0x60, 0, TRANSPORT_KEY, b"\xde\xad\xbe\xef") is True
    assert _ask(card, "3000")[:12] == "deadbeef" + "22" + f"{card.presented.sak:02x}"
    assert _ask(card, "3003") == "00" * 6 + "ff078069" + "ff" * 6
    assert _ask(card, "a001") == "ack"
    assert _ask(card, "0f" * 16) == "ack"
    assert _ask(card, "3001") == "0f" * 16
    last = blocks - 1
    assert card.authenticate(0x61, last, TRANSPORT_KEY, b"\xde\xad\xbe\xef") is True
    assert _ask(card, f"30{last:02x}") == "00" * 6 + "ff078069" + "ff" * 6
    assert _ask(card, "3001") == "nak"  # another sector


@pytest.mark.parametrize(
    ("code", "block", "key", "uid"),
    [
        (0x60, 4, b"\xa0" * 6, b"\xde\xad\xbe\xef"),
        (0x61, 4, b"\xa0" * 6, b"\xde\xad\xbe\xef"),
        (0x60, 64, TRANSPORT_KEY, b"\xde\xad\xbe\xef"),
        (0x60, 4, TRANSPORT_KEY, b"\xde\xad\xbe\xee"),
    ],
)
def test_classic_refuses_and_falls_silent(code: int, block: int, key: bytes, uid: bytes) -> None:
    card = _selected("classic:DEADBEEF")
    assert card.authenticate(code, block, key, uid) is False
    assert card.authenticate(0x60, 4, TRANSPORT_KEY, b"\xde\xad\xbe\xef") is None


def test_classic_tells_nothing_without_a_key() -> None:
    assert _ask(_selected("classic:DEADBEEF"), "3000") == "nak"


def test_a_halted_card_answers_only_to_wupa() -> None:
    card = _selected("classic:DEADBEEF")
    assert _ask(card, "5000") == ""
    assert card.receive(Air(b"\x26", 7)) is None
    assert card.receive(Air(b"\x52", 7)) is not None


def test_losing_the_field_wakes_a_halted_card() -> None:
    card = _selected("classic:DEADBEEF")
    _ask(card, "5000")
    card.power_off()
    assert card.receive(Air(b"\x26", 7)) is not None


def test_a_frame_with_a_wrong_crc_is_not_heard() -> None:
    card = _selected(f"ntag215:{UID}")
    assert card.receive(Air(b"\x30\x00\x00\x00")) is None
    assert _ask(card, "3000") != ""


@given(
    st.sampled_from([4, 7, 10]).flatmap(lambda length: st.binary(min_size=length, max_size=length)),
    st.lists(st.tuples(st.binary(max_size=40), st.sampled_from([0, 4, 7])), max_size=10),
)
def test_any_frame_over_the_air(uid: bytes, frames: list[tuple[bytes, int]]) -> None:
    card = Card(PresentedCard(uid, b"\x00\x04", 0x20, b"\x02\x00"), Silent())
    for data, bits in frames:
        card.receive(Air(data, bits))
        card.receive(with_crc(data))
    card.power_off()
    assert card.receive(Air(b"\x26", 7)) is not None


class Echo:
    """Answers every APDU with itself, twice over."""

    def apdu(self, command: bytes) -> bytes:
        return command * 2


@given(st.binary(min_size=1, max_size=600), st.sampled_from(FRAME_SIZES), st.integers(0, 8))
def test_messages_of_any_length_pass_in_blocks_of_any_length(
    message: bytes, card_frame: int, fsdi: int
) -> None:
    """ISO/IEC 14443-4, section 7.5: chaining both ways."""
    card, reader = CardBlocks(Echo()), ReaderBlocks(card_frame)
    card.start(bytes((0xE0, fsdi << 4)))
    for _ in range(2):  # block numbers go on from one message to the next
        block: bytes | None = reader.start(message)
        while block is not None:
            assert len(block) + 2 <= card_frame
            answer = card.answer(block)
            assert answer is not None
            assert len(answer) + 2 <= FRAME_SIZES[fsdi]
            block = reader.next(answer)
        assert reader.done
        assert reader.answer == message * 2


def test_block_rules_that_clients_use() -> None:
    """Presence check, retransmission, DESELECT; with and without CID."""
    card = CardBlocks(Echo())
    card.start(b"\xe0\x80")
    assert card.answer(bytes.fromhex("d011")) == b"\xd0"
    assert card.answer(bytes.fromhex("b2")) == b"\xa3"  # R(NAK) with the other number: still here
    assert card.answer(bytes.fromhex("0201")) == bytes.fromhex("020101")
    assert card.answer(bytes.fromhex("b2")) == bytes.fromhex("020101")  # the same number: say it again
    assert card.answer(bytes.fromhex("0b0702")) == bytes.fromhex("0b070202")
    assert card.answer(bytes.fromhex("02")) == b"\x02"
    assert card.answer(bytes.fromhex("ff")) is None
    assert not card.deselected
    assert card.answer(bytes.fromhex("c2")) == b"\xc2"
    assert card.deselected


@given(st.lists(st.binary(min_size=1, max_size=64), max_size=20))
def test_any_blocks_at_all(blocks: list[bytes]) -> None:
    card, reader = CardBlocks(Echo()), ReaderBlocks(16)
    reader.start(b"x" * 20)
    for block in blocks:
        card.answer(block)
        reader.next(block)


@pytest.mark.parametrize(
    ("spec", "presented"),
    [
        ("ntag215:04a1b2c3d4e5f6", PresentedCard(bytes.fromhex(UID), b"\x00\x44", 0x00)),
        ("classic:04A1B2C3D4E5F6", PresentedCard(bytes.fromhex(UID), b"\x00\x44", 0x08)),
        ("classic4k:DEADBEEF", PresentedCard(b"\xde\xad\xbe\xef", b"\x00\x02", 0x18)),
        (
            " iso14443a:08A1B2C3:0004:20:0278 ",
            PresentedCard(bytes.fromhex("08A1B2C3"), b"\x00\x04", 0x20, b"\x02\x78"),
        ),
    ],
)
def test_specs(spec: str, presented: PresentedCard) -> None:
    assert parse_card(spec).presented == presented


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "known: ultralight"),
        ("desfire:04A1B2C3D4E5F6", "known: ultralight"),
        ("ntag215", "14 hex digits"),
        ("ntag215:04A1B2C3", "14 hex digits"),
        ("ntag215:04A1B2C3D4E5F6:00", "14 hex digits"),
        ("ntag215:04A1B2C3D4E5ZZ", "cannot be read"),
        ("classic:DEADBE", "8 or 14 hex digits"),
        ("iso14443a:DEADBEEF:0004", "UID:ATQA:SAK"),
        ("iso14443a:DEADBE:0004:08", "8, 14 or 20"),
        ("iso14443a:DEADBEEF:04:08", "ATQA"),
        ("iso14443a:DEADBEEF:0004:0808", "SAK 2"),
        ("iso14443a:DEADBEEF:0004:04", "SAK bit 04"),
        ("iso14443a:DEADBEEF:0004:20", "SAK bit 20"),
        ("iso14443a:DEADBEEF:0004:08:0278", "SAK bit 20"),
        ("iso14443a:DEADBEEF:0004:20:0378", "its own length"),
    ],
)
def test_bad_specs_are_sentences(spec: str, reason: str) -> None:
    with pytest.raises(BadSpec, match=reason):
        parse_card(spec)


@given(st.one_of(st.text(), st.builds("{}:{}".format, st.sampled_from(KINDS), st.text("0123456789abcdef: "))))
def test_any_spec_is_a_card_or_a_sentence(spec: str) -> None:
    try:
        card = parse_card(spec)
    except BadSpec as error:
        assert str(error)
    else:
        assert len(card.presented.uid) in (4, 7, 10)


def _again(card: Card) -> Card:
    """The same card, selected anew."""
    card.power_off()
    card.receive(Air(b"\x26", 7))
    for code in (0x93, 0x95):
        level = card.receive(Air(bytes((code, 0x20))))
        assert level is not None
        card.receive(with_crc(bytes((code, 0x70)) + level.data))
    return card
