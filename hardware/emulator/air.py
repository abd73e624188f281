"""What travels between reader and card: ISO/IEC 14443-3 type A frames."""

from dataclasses import dataclass
from typing import Final

CRC_BYTES: Final = 2

REQA: Final = 0x26
WUPA: Final = 0x52
HLTA: Final = b"\x50\x00"
RATS: Final = 0xE0
SELECT: Final = (0x93, 0x95, 0x97)
"""Select codes of cascade levels 1 to 3."""
CASCADE_TAG: Final = 0x88

SAK_INCOMPLETE: Final = 0x04
SAK_ISO_DEP: Final = 0x20


@dataclass(frozen=True, slots=True)
class Air:
    """One transmission: whole bytes, CRC included where there is one, or a few bits in one byte."""

    data: bytes
    last_bits: int = 0
    """How many bits of the last byte count; 0 means all eight."""


ACK: Final = Air(b"\x0a", 4)
NAK: Final = Air(b"\x00", 4)


def crc_a(data: bytes) -> bytes:
    """CRC_A of ISO/IEC 14443-3 annex B, in the order of transmission."""
    crc = 0x6363
    for byte in data:
        byte ^= crc & 0xFF
        byte = (byte ^ byte << 4) & 0xFF
        crc = (crc >> 8) ^ (byte << 8) ^ (byte << 3) ^ (byte >> 4)
    return (crc & 0xFFFF).to_bytes(2, "little")


def with_crc(data: bytes) -> Air:
    """A standard frame around `data`."""
    return Air(data + crc_a(data))


def without_crc(frame: Air) -> bytes | None:
    """The data of a standard frame; None when it is none, or its CRC is wrong."""
    if frame.last_bits or len(frame.data) <= CRC_BYTES:
        return None
    data, crc = frame.data[:-CRC_BYTES], frame.data[-CRC_BYTES:]
    return data if crc_a(data) == crc else None
