"""Clients that nobody here wrote work with the emulator: stock Adafruit, nfcpy, libnfc.

This is the check on both ends sharing `hardware.framing`: a mistake there would be one here.
"""

import ctypes.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
from adafruit_pn532.adafruit_pn532 import MIFARE_CMD_AUTH_A
from adafruit_pn532.i2c import PN532_I2C
from adafruit_pn532.spi import PN532_SPI
from adafruit_pn532.uart import PN532_UART

from hardware.emulator.buses import FakeI2c, FakePin, FakeSpi
from hardware.emulator.chip import Chip
from hardware.emulator.faults import FaultyLine
from hardware.emulator.pty_line import EmulatedReader, PtyLine
from hardware.emulator.specs import parse_card
from tests.needs import missing, needs_module, needs_program

NTAG = "ntag215:04A1B2C3D4E5F6"
CLASSIC = "classic:DEADBEEF"
ISO_DEP = "iso14443a:04112233445566:0344:20:067577810280"


@pytest.fixture
def line() -> Iterator[PtyLine]:
    with EmulatedReader() as emulated:
        yield emulated


def test_stock_adafruit_over_uart(line: PtyLine) -> None:
    with serial.Serial(line.path, 115200, timeout=0.05) as port:
        _adafruit_session(PN532_UART(port), line.present)


@pytest.mark.parametrize(
    "make", [lambda wired: PN532_I2C(FakeI2c(wired)), lambda wired: PN532_SPI(FakeSpi(wired), FakePin())]
)
def test_stock_adafruit_over_buses(make: Any) -> None:
    wired = FaultyLine(Chip())
    _adafruit_session(make(wired), lambda spec: wired.chip.put(parse_card(spec)))


def _adafruit_session(pn532: Any, present: Any) -> None:
    """The calls of Adafruit's own examples."""
    assert pn532.firmware_version == (0x32, 1, 6, 7)
    pn532.SAM_configuration()
    present(NTAG)
    assert bytes(pn532.read_passive_target(timeout=1)).hex() == "04a1b2c3d4e5f6"
    assert pn532.ntag2xx_write_block(6, b"FARE")
    assert bytes(pn532.ntag2xx_read_block(6)) == b"FARE"
    present(CLASSIC)
    uid = pn532.read_passive_target(timeout=1)
    assert pn532.mifare_classic_authenticate_block(uid, 4, MIFARE_CMD_AUTH_A, b"\xff" * 6)
    assert pn532.mifare_classic_write_block(4, bytes(range(16)))
    assert bytes(pn532.mifare_classic_read_block(4)) == bytes(range(16))
    assert not pn532.mifare_classic_authenticate_block(uid, 4, MIFARE_CMD_AUTH_A, b"\xa0" * 6)
    assert pn532.power_down()
    assert bytes(pn532.read_passive_target(timeout=1)).hex() == "deadbeef"


def _nfcpy(line: PtyLine) -> dict[str, Any]:
    if ctypes.util.find_library("usb-1.0") is None:
        missing("libusb-1.0-0 is not installed: nfcpy cannot be imported without it (libnfc-bin brings it)")
    needs_module("nfc", "check the emulator with nfcpy")
    script = Path(__file__).with_name("nfcpy_session.py")
    done = subprocess.run(
        [sys.executable, str(script), line.path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_nfcpy_opens_the_reader_at_921600_baud_and_leaves_it_at_115200(line: PtyLine) -> None:
    assert _nfcpy(line) == {"chip": "PN532v1.6", "tag": None}
    assert line.baud == 115200


def test_nfcpy_reads_and_writes_an_ntag(line: PtyLine) -> None:
    line.present(NTAG)
    assert _nfcpy(line) == {
        "chip": "PN532v1.6",
        "tag": "NTAG215",
        "uid": "04a1b2c3d4e5f6",
        "present": True,
        "memory": "FARE",
        "signature": "00" * 32,
        "dump": [
            "000: 04 a1 b2 9f (UID0-UID2, BCC0)",
            "001: c3 d4 e5 f6 (UID3-UID6)",
            "002: 04 48 00 00 (BCC1, INT, LOCK0-LOCK1)",
            "003: e1 10 3e 00 (OTP0-OTP3)",
        ],
    }


def test_nfcpy_talks_iso_14443_4_by_itself(line: PtyLine) -> None:
    """nfcpy switches automatic RATS off and makes the blocks on its own."""
    line.present(ISO_DEP)
    found = _nfcpy(line)
    assert found == {
        "chip": "PN532v1.6",
        "tag": "Type4ATag",
        "uid": "04112233445566",
        "present": True,
        "apdu": "6d00",
    }


def _libnfc(line: PtyLine, *command: str) -> str:
    program = needs_program(command[0], "check the emulator with libnfc")
    done = subprocess.run(
        [str(program), *command[1:]],
        env={**os.environ, "LIBNFC_DEVICE": f"pn532_uart:{line.path}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (NTAG, ["(SENS_RES): 00 44", "04 a1 b2 c3 d4 e5 f6", "(SEL_RES): 00", "MIFARE Ultralight"]),
        (CLASSIC, ["(SENS_RES): 00 04", "de ad be ef", "(SEL_RES): 08", "MIFARE Classic 1K"]),
        (ISO_DEP, ["(SENS_RES): 03 44", "04 11 22 33 44 55 66", "ATS: 75 77 81 02 80"]),
    ],
)
def test_nfc_list_names_the_card(line: PtyLine, spec: str, words: list[str]) -> None:
    line.present(spec)
    said = _libnfc(line, "nfc-list", "-v")
    assert "1 ISO14443A passive target(s) found" in said
    for word in words:
        assert word in said


def test_nfc_list_finds_nothing_of_any_kind(line: PtyLine) -> None:
    said = _libnfc(line, "nfc-list", "-v")
    assert said.count("0 ISO14443A passive target(s) found") == 1
    assert " 1 " not in said


def test_nfc_mfclassic_dumps_a_card(line: PtyLine, tmp_path: Path) -> None:
    line.present(CLASSIC)
    assert "64 of 64 blocks read" in _libnfc(line, "nfc-mfclassic", "r", "a", "u", str(tmp_path / "dump"))
    dump = (tmp_path / "dump").read_bytes()
    assert dump[:6].hex() == "deadbeef2208"
    assert dump[48:58].hex() == "ff" * 6 + "ff078069"


def test_nfc_mfultralight_dumps_a_tag(line: PtyLine, tmp_path: Path) -> None:
    """It asks GET_VERSION by InCommunicateThru to tell which tag it is."""
    line.present(NTAG)
    said = _libnfc(line, "nfc-mfultralight", "r", str(tmp_path / "dump"))
    assert "NTAG215" in said
    assert "135 of 135 pages read" in said
    assert (tmp_path / "dump").read_bytes()[:16].hex() == "04a1b29fc3d4e5f604480000e1103e00"


def test_our_driver_takes_over_from_them(line: PtyLine) -> None:
    """Whatever another client has set, the reader works afterwards."""
    from hardware.pn532 import open_reader

    line.present(ISO_DEP)
    _libnfc(line, "nfc-list")
    reader = open_reader(f"uart:{line.path}")
    card = reader.poll(1)
    assert card is not None
    assert card.ats.hex() == "067577810280"
    reader.close()
