"""NFC Forum Type 2 tags: MIFARE Ultralight, Ultralight EV1 and NTAG21x memory and commands.

Sources: NXP datasheets MF0ICU1, MF0ULX1, NTAG213/215/216 (memory map, 8.5; delivery state, 8.5.5 ff.).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hardware.emulator.air import ACK, CASCADE_TAG, NAK, Air, with_crc

PAGE_BYTES: Final = 4

_LOCK_PAGE: Final = 2
_OTP_PAGE: Final = 3
_FIRST_USER_PAGE: Final = 4
_EMPTY_NDEF: Final = bytes.fromhex("0300fe")
_SIGNATURE: Final = bytes(32)
"""A real one is made with NXP's key; nothing in the appliance trusts it."""


class _Code(IntEnum):
    PASSWORD = 0x1B
    READ = 0x30
    READ_COUNTER = 0x39
    FAST_READ = 0x3A
    READ_SIGNATURE = 0x3C
    GET_VERSION = 0x60
    COMPATIBILITY_WRITE = 0xA0
    WRITE = 0xA2


@dataclass(frozen=True, slots=True)
class Layout:
    """One chip of the family. Pages count from 0; those after `user_pages` are configuration."""

    pages: int
    user_pages: int
    """Where the user memory ends, exclusive."""
    capability: bytes
    """Page 3 as delivered."""
    version: bytes = b""
    """GET_VERSION's answer; empty for a chip that does not know the command."""
    first_data: bytes = b""
    """From page 4, as delivered."""
    configuration: bytes = b""
    """From `user_pages`, as delivered, password and PACK excluded."""


_NTAG_CONFIGURATION: Final = bytes.fromhex("000000bd 040000ff 00050000")

LAYOUTS: Final = {
    "ultralight": Layout(16, 16, bytes(4)),
    "ultralight-ev1": Layout(
        20, 16, bytes(4), bytes.fromhex("0004030101000b03"), b"", bytes.fromhex("000000ff 00050000")
    ),
    "ntag213": Layout(
        45,
        40,
        bytes.fromhex("e1101200"),
        bytes.fromhex("0004040201000f03"),
        bytes.fromhex("0103a00c34") + _EMPTY_NDEF,
        _NTAG_CONFIGURATION,
    ),
    "ntag215": Layout(
        135,
        130,
        bytes.fromhex("e1103e00"),
        bytes.fromhex("0004040201001103"),
        _EMPTY_NDEF,
        _NTAG_CONFIGURATION,
    ),
    "ntag216": Layout(
        231,
        226,
        bytes.fromhex("e1106d00"),
        bytes.fromhex("0004040201001303"),
        _EMPTY_NDEF,
        _NTAG_CONFIGURATION,
    ),
}


class Type2Tag:
    """The memory of one tag; writes stay for as long as the object lives."""

    def __init__(self, layout: Layout, uid: bytes) -> None:
        self._layout = layout
        self.memory = _delivered(layout, uid)
        self._waiting_page: int | None = None

    def forget(self) -> None:
        self._waiting_page = None

    def answer(self, command: bytes) -> Air | None:
        if self._waiting_page is not None:
            page, self._waiting_page = self._waiting_page, None
            return self._write(page, command[:PAGE_BYTES]) if len(command) == 16 else NAK
        code, arguments = command[0], command[1:]
        match code, len(arguments):
            case (_Code.READ, 1):
                return self._read(arguments[0])
            case (_Code.WRITE, 5):
                return self._write(arguments[0], arguments[1:])
            case (_Code.COMPATIBILITY_WRITE, 1):
                self._waiting_page = arguments[0]
                return ACK if self._writable(arguments[0]) else NAK
        return self._since_ev1(code, arguments) if self._layout.version else None

    def _since_ev1(self, code: int, arguments: bytes) -> Air | None:
        """Commands that the first Ultralight does not know."""
        match code, len(arguments):
            case (_Code.GET_VERSION, 0):
                return with_crc(self._layout.version)
            case (_Code.FAST_READ, 2):
                return self._fast_read(arguments[0], arguments[1])
            case (_Code.READ_COUNTER, 1):
                return with_crc(bytes(3))
            case (_Code.READ_SIGNATURE, 1):
                return with_crc(_SIGNATURE)
            case (_Code.PASSWORD, 4):
                return with_crc(bytes(2)) if arguments == b"\xff" * 4 else NAK
        return None

    def _read(self, page: int) -> Air:
        if page >= self._layout.pages:
            return NAK
        # Four pages, from the start again where the memory ends.
        start = page * PAGE_BYTES
        return with_crc(bytes((self.memory + self.memory)[start : start + 4 * PAGE_BYTES]))

    def _fast_read(self, first: int, last: int) -> Air:
        if not first <= last < self._layout.pages:
            return NAK
        return with_crc(bytes(self.memory[first * PAGE_BYTES : (last + 1) * PAGE_BYTES]))

    def _writable(self, page: int) -> bool:
        if not _LOCK_PAGE <= page < self._layout.pages:
            return False
        locks = int.from_bytes(self.memory[10:12], "little")
        return not (_OTP_PAGE <= page < 16 and locks >> page & 1)

    def _write(self, page: int, data: bytes) -> Air:
        if not self._writable(page):
            return NAK
        at = page * PAGE_BYTES
        if page in (_LOCK_PAGE, _OTP_PAGE):
            # Bits there can be set and never cleared; the first half of page 2 cannot be written at all.
            keep = PAGE_BYTES // 2 if page == _LOCK_PAGE else 0
            data = bytes(old | new for old, new in zip(self.memory[at : at + 4], data, strict=True))
            self.memory[at + keep : at + PAGE_BYTES] = data[keep:]
        elif page < self._layout.user_pages + len(self._layout.configuration) // PAGE_BYTES:
            self.memory[at : at + PAGE_BYTES] = data
        # Beyond are password and PACK: written, never read back, and not modelled.
        return ACK


def _delivered(layout: Layout, uid: bytes) -> bytearray:
    """The memory as the factory leaves it; the check bytes are ISO/IEC 14443-3's BCC."""
    bcc0 = CASCADE_TAG ^ uid[0] ^ uid[1] ^ uid[2]
    bcc1 = uid[3] ^ uid[4] ^ uid[5] ^ uid[6]
    head = uid[:3] + bytes((bcc0,)) + uid[3:] + bytes((bcc1, 0x48, 0, 0)) + layout.capability
    user = layout.first_data.ljust((layout.user_pages - _FIRST_USER_PAGE) * PAGE_BYTES, b"\0")
    return bytearray((head + user + layout.configuration).ljust(layout.pages * PAGE_BYTES, b"\0"))
