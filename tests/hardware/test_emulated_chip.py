"""The emulated PN532, byte by byte: what hosts send, and what the real chip says to it (UM0701-02)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware import framing
from hardware.emulator.chip import Chip
from hardware.emulator.specs import parse_card
from hardware.framing import ACK, ERROR_FRAME, NACK, Body, FrameDecoder

NTAG = "ntag215:04A1B2C3D4E5F6"
ISO_DEP = "iso14443a:04112233445566:0344:20:067577810280"
NEVER = 1e9


class Host:
    """Sends commands to a chip that is awake, and knows what time it is."""

    def __init__(self, card: str = "") -> None:
        self.chip = Chip()
        self.chip.wake()
        self.now_s = 0.0
        if card:
            self.chip.put(parse_card(card))

    def send(self, frame: bytes) -> list[bytes]:
        return self.chip.receive(frame, self.now_s)

    def start(self, command: str) -> list[bytes]:
        """Frames that come at once after the ACK."""
        first, *rest = self.send(framing.encode(b"\xd4" + bytes.fromhex(command)))
        assert first == ACK
        return rest

    def ask(self, command: str) -> str:
        """The answer's bytes after D5, in hex."""
        (frame,) = self.start(command)
        return _said(frame)

    def wait(self, now_s: float) -> list[bytes]:
        self.now_s = now_s
        return self.chip.advance(now_s)


def _said(frame: bytes) -> str:
    (body,) = FrameDecoder().feed(frame)
    assert isinstance(body, Body)
    assert body.data[0] == framing.CHIP_TO_HOST
    return body.data[1:].hex()


def test_the_exact_bytes_of_a_first_conversation() -> None:
    """Adafruit's wake-up, SAMConfiguration and GetFirmwareVersion."""
    chip = Chip()
    woken = chip.receive(bytes.fromhex("5555" + "00" * 15 + "0000ff05fbd4140114010200"), 0, 115200)
    assert [frame.hex() for frame in woken] == ["0000ff00ff00", "0000ff02fed5151600"]
    version = chip.receive(bytes.fromhex("0000ff02fed4022a00"), 0, 115200)
    assert [frame.hex() for frame in version] == ["0000ff00ff00", "0000ff06fad50332010607e800"]


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("00 00 6c69626e6663", "01 00 6c69626e6663"),  # libnfc's communication test
        ("00 01", "01 00"),
        ("00 02", "01 00"),
        ("02", "03 32010607"),
        ("04", "05 00 00 00 80"),
        ("06 6302 6303", "07 80 80"),
        ("08 6302 00", "09"),
        ("0c", "0d 3f0600"),
        ("0e 80 80", "0f"),
        ("12 14", "13"),
        ("14 01", "15"),
        ("14 01 00 00", "15"),
        ("14 01 14 01", "15"),
        ("32 01 01", "33"),
        ("32 02 00 0b 0a", "33"),
        ("32 04 00", "33"),
        ("32 05 01 00 01", "33"),
        ("32 0a 59f43f114d85616f266287", "33"),
        ("32 0b 69ff3f114185616f", "33"),
        ("32 0c ff0485", "33"),
        ("32 0d 85158a8508b28501da", "33"),
        ("40 01 30 00", "41 27"),  # no target was selected
        ("42", "43 01"),
        ("42 0a", "43 01"),
        ("44 00", "45 00"),
        ("52 00", "53 00"),
        ("54 01", "55 27"),
        ("56 01 00 00", "57 01"),
        ("86", "87 27"),
    ],
)
def test_answers_without_a_card(command: str, answer: str) -> None:
    assert Host().ask(command) == answer.replace(" ", "")


@pytest.mark.parametrize(
    "command",
    ["ff", "01", "10", "10 09", "12", "14", "14 05", "16", "32", "32 05 01", "32 77 00", "4a 01", "4a 03 00"]
    + ["06", "06 63", "08 6302", "44", "54", "60 01 01", "60 00 01 00", "00", "00 09"],
)
def test_what_the_chip_does_not_know_is_an_error_frame(command: str) -> None:
    assert Host().start(command) == [ERROR_FRAME]


def test_a_frame_that_is_no_command_is_an_error_frame() -> None:
    assert Host().send(framing.encode(b"\xd5\x02")) == [ACK, ERROR_FRAME]
    assert Host().send(framing.encode(b"\xd4")) == [ACK, ERROR_FRAME]


def test_a_damaged_frame_is_not_acknowledged_and_the_next_one_is() -> None:
    host = Host()
    assert host.send(bytes.fromhex("0000ff02fed4022b00")) == []
    assert host.ask("02") == "0332010607"


def test_a_nack_brings_the_last_answer_again() -> None:
    host = Host()
    assert host.send(NACK) == []
    (version,) = host.start("02")
    assert host.send(NACK) == [version]


def test_extended_frames_both_ways() -> None:
    """nfcpy's line test: the longest command there is, said back."""
    host = Host()
    line = "0000" + bytes(range(256)).hex() + "010203040506"
    assert (
        len(framing.encode(b"\xd4" + bytes.fromhex(line))) == framing.MAX_BODY_BYTES + framing.OVERHEAD_BYTES
    )
    assert host.ask(line) == "01" + line[2:]


def test_a_sleeping_chip_loses_the_bytes_that_wake_it() -> None:
    host = Host()
    assert host.ask("16 f0") == "1700"
    assert host.send(framing.encode(b"\xd4\x02")) == []
    assert host.send(framing.encode(b"\xd4\x02"))[0] == ACK


def test_the_speed_changes_when_the_host_acknowledges() -> None:
    chip = Chip()
    chip.wake()
    version = framing.encode(b"\xd4\x02")
    assert chip.receive(version, 0, 9600) == []
    chip.receive(framing.encode(b"\xd4\x10\x08"), 0, 115200)
    assert chip.receive(version, 0, 115200) != []
    chip.receive(framing.encode(b"\xd4\x10\x07"), 0, 115200)
    chip.receive(ACK, 0, 115200)
    assert chip.baud == 921600
    assert chip.receive(version, 0, 115200) == []
    assert chip.receive(version, 0, 921600) != []
    chip.power_cycle()
    assert chip.baud == 115200


def test_a_look_ends_by_itself_when_retries_are_bounded() -> None:
    host = Host()
    host.ask("32 05 ff 01 02")
    assert host.start("4a 01 00") == []
    deadline_s = host.chip.deadline_s
    assert deadline_s is not None
    assert host.wait(deadline_s / 2) == []
    assert [_said(frame) for frame in host.wait(deadline_s)] == ["4b00"]
    assert host.chip.deadline_s is None


def test_a_look_with_endless_retries_waits_for_a_card() -> None:
    host = Host()
    assert host.start("4a 01 00") == []
    assert host.chip.deadline_s is None
    assert host.wait(NEVER) == []
    host.chip.put(parse_card(NTAG))
    assert [_said(frame) for frame in host.wait(NEVER)] == ["4b010100440007" + "04a1b2c3d4e5f6"]


@pytest.mark.parametrize("command", ["4a 01 00", "58 00", "00 05", "60 ff 01 00", "8c 00" + "00" * 36])
def test_an_ack_from_the_host_aborts_the_running_command(command: str) -> None:
    host = Host()
    assert host.start(command) == []
    assert host.send(ACK) == []
    host.chip.put(parse_card(NTAG))
    assert host.wait(NEVER) == []


def test_a_new_command_aborts_the_running_one() -> None:
    host = Host()
    host.start("4a 01 00")
    assert host.ask("02") == "0332010607"
    host.chip.put(parse_card(NTAG))
    assert host.wait(NEVER) == []


@pytest.mark.parametrize(
    ("card", "target"),
    [
        (NTAG, "0044 00 07 04a1b2c3d4e5f6"),
        ("classic:DEADBEEF", "0004 08 04 deadbeef"),
        (ISO_DEP, "0344 20 07 04112233445566 067577810280"),
        ("iso14443a:0102030405060708090A:0084:00", "0084 00 0a 0102030405060708090a"),
    ],
)
def test_in_list_passive_target(card: str, target: str) -> None:
    assert Host(card).ask("4a 01 00") == "4b0101" + target.replace(" ", "")
    # A card stays findable, and the second of two is not there.
    host = Host(card)
    assert host.ask("4a 02 00") == host.ask("4a 02 00")


def test_in_list_passive_target_by_uid() -> None:
    host = Host(NTAG)
    host.ask("32 05 00 00 00")
    assert host.ask("4a 01 00 88 04a1b2 c3d4e5f6").startswith("4b01")
    assert host.start("4a 01 00 88 04a1b2 c3d4e5f7") == []
    assert [_said(frame) for frame in host.wait(NEVER)] == ["4b00"]


@pytest.mark.parametrize("kind", ["01", "02", "03", "04"])
def test_other_kinds_of_card_are_not_there(kind: str) -> None:
    host = Host(NTAG)
    host.ask("32 05 00 00 00")
    assert host.start(f"4a 01 {kind} 00") == []
    assert [_said(frame) for frame in host.wait(NEVER)] == ["4b00"]


def test_without_automatic_rats_there_is_no_ats() -> None:
    host = Host(ISO_DEP)
    host.ask("12 00")
    assert host.ask("4a 01 00") == "4b0101" + "0344" + "20" + "07" + "04112233445566"


def test_in_auto_poll() -> None:
    host = Host(NTAG)
    assert host.ask("60 01 01 00") == "6101" + "10" + "0c" + "01" + "0044" + "00" + "07" + "04a1b2c3d4e5f6"
    assert Host(ISO_DEP).ask("60 ff 01 10 20").startswith("610120")
    host = Host()
    assert host.start("60 02 01 00 10") == []
    assert [_said(frame) for frame in host.wait(NEVER)] == ["6100"]


def test_status_knows_the_selected_target() -> None:
    host = Host(NTAG)
    host.ask("4a 01 00")
    assert host.ask("04") == "05" + "00" + "01" + "01" + "01000000" + "80"
    assert host.ask("00 06") == "0100"
    host.ask("52 00")
    assert host.ask("04") == "05" + "00" + "01" + "00" + "80"


def test_select_after_deselect() -> None:
    host = Host(NTAG)
    host.ask("4a 01 00")
    assert host.ask("44 01") == "4500"
    assert host.ask("40 01 60") == "4101"  # halted
    assert host.ask("54 01") == "5500"
    assert host.ask("40 01 60") == "4100" + "0004040201001103"


def test_raw_anticollision_as_nfc_anticol_does_it() -> None:
    """libnfc's raw tools: CRC off, seven bits for REQA, everything else by hand."""
    host = Host(NTAG)
    host.ask("08 6302 00 6303 00 633d 07")
    assert host.ask("42 26") == "4300" + "4400"
    host.ask("08 633d 00")
    assert host.ask("42 93 20") == "4300" + "8804a1b29f"
    assert host.ask("42 93 70 88 04a1b2 9f ae4b") == "4300" + "04da17"
    assert host.ask("42 95 20") == "4300" + "c3d4e5f604"
    assert host.ask("42 95 70 c3d4e5f6 04 9e03") == "4300" + "00fe51"
    assert host.ask("42 50 00 57 cd") == "4301"
    host.ask("08 633d 07")
    assert host.ask("42 26") == "4301"  # halted: only WUPA helps
    assert host.ask("42 52") == "4300" + "4400"


def test_raw_commands_with_and_without_crc_as_nfcpy_sends_them() -> None:
    host = Host(NTAG)
    host.ask("4a 01 00")
    assert host.ask("42 60") == "4300" + "0004040201001103"
    assert host.ask("42 a2 04 01020304") == "4302"  # the 4-bit ACK has no CRC
    host.ask("08 6303 00")
    assert host.ask("42 a2 04 01020304") == "43000a"
    assert host.ask("06 633c") == "0704"  # and four bits are valid
    assert host.ask("42 30 04") == "4300" + "01020304" + "00" * 12 + "f9c2"
    assert host.ask("42 30 ff") == "430000"


def test_an_empty_field_leaves_reqa_in_the_fifo() -> None:
    """This is how nfcpy tells "no card" from "a card of another kind"."""
    host = Host()
    host.ask("32 05 00 00 00")
    host.start("4a 01 00")
    host.wait(NEVER)
    assert host.ask("06 6339") == "0726"


def test_a_card_that_is_taken_away_does_not_answer() -> None:
    host = Host(NTAG)
    host.ask("4a 01 00")
    host.chip.put(None)
    assert host.ask("40 01 60") == "4101"
    host.chip.put(parse_card(NTAG))  # another one of the kind: it was never selected
    assert host.ask("40 01 60") == "4101"


def test_switching_the_field_off_loses_the_target() -> None:
    host = Host(NTAG)
    host.ask("4a 01 00")
    assert host.ask("06 6304") == "0783"
    host.ask("32 01 00")
    assert host.ask("06 6304") == "0780"
    assert host.ask("40 01 60") == "4127"


@given(
    st.lists(st.binary(max_size=300), max_size=6), st.sampled_from(["", NTAG, ISO_DEP, "classic:DEADBEEF"])
)
def test_any_bytes_at_all(chunks: list[bytes], card: str) -> None:
    host = Host(card)
    for chunk in chunks:
        _all_frames(host.send(chunk))
    assert host.send(ACK + framing.encode(b"\xd4\x02")) != []


@given(st.lists(st.binary(min_size=1, max_size=264), max_size=12), st.sampled_from(["", NTAG, ISO_DEP]))
def test_any_commands_at_all(commands: list[bytes], card: str) -> None:
    """Every well-formed frame is acknowledged; every answer is a well-formed frame."""
    host = Host(card)
    for command in commands:
        out = host.send(framing.encode(b"\xd4" + command))
        if out:  # PowerDown makes the chip lose the next frame's start
            assert out[0] == ACK
        _all_frames(out)
        _all_frames(host.wait(host.now_s + 1))


def _all_frames(out: list[bytes]) -> None:
    for frame in out:
        (found,) = FrameDecoder().feed(frame)
        assert not isinstance(found, framing.Broken)
