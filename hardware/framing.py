"""PN532 frames: bytes in, frames out. No I/O.

Source: NXP UM0701-02 (PN532 user manual) section 6.2.1. A frame is

    00 | 00 FF | LEN LCS | TFI PD0 .. PDn | DCS | 00            normal, TFI + PD up to 255 bytes
    00 | 00 FF | FF FF | LENM LENL LCS | TFI .. | DCS | 00       extended, up to 265 bytes
    00 | 00 FF | 00 FF | 00                                     ACK; from the host: abort the command
    00 | 00 FF | FF 00 | 00                                     NACK: send the last answer again

LCS and DCS make their sum with LEN, or with TFI and the data, zero modulo 256. An error frame is a normal one
whose only byte is 7F.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

ACK: Final = bytes.fromhex("0000ff00ff00")
NACK: Final = bytes.fromhex("0000ffff0000")

HOST_TO_CHIP: Final = 0xD4
CHIP_TO_HOST: Final = 0xD5
ERROR_CODE: Final = 0x7F

MAX_BODY_BYTES: Final = 265
"""TFI included."""
MAX_NORMAL_BODY_BYTES: Final = 255
OVERHEAD_BYTES: Final = 10
"""What an extended frame adds to its body; a normal one adds 7."""

_START: Final = b"\x00\xff"
_ACK_BYTES: Final = 6


class Mark(Enum):
    """The frames without a body."""

    ACK = "ack"
    NACK = "nack"


@dataclass(frozen=True, slots=True)
class Body:
    """A frame whose checksums are right; `data` starts with the TFI."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that started like a frame and is none."""

    reason: str


Frame = Mark | Body | Broken


def encode(body: bytes) -> bytes:
    """The frame around `body` (TFI first, 1..265 bytes); extended only where it has to be."""
    if not 1 <= len(body) <= MAX_BODY_BYTES:
        raise ValueError(f"a PN532 frame carries 1 to {MAX_BODY_BYTES} bytes, not {len(body)}")
    if len(body) <= MAX_NORMAL_BODY_BYTES:
        head = bytes((len(body), -len(body) & 0xFF))
    else:
        length = len(body).to_bytes(2, "big")
        head = b"\xff\xff" + length + bytes((-sum(length) & 0xFF,))
    return b"\x00" + _START + head + body + bytes((-sum(body) & 0xFF, 0))


ERROR_FRAME: Final = encode(bytes((ERROR_CODE,)))


class FrameDecoder:
    """Finds frames in a byte stream with noise in it.

    Holds no more than one frame's bytes between calls, whatever arrives.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def missing(self) -> int:
        """How many bytes have to come, at least, before the next frame can be whole.

        Reading exactly so many never waits for bytes that nobody sends.
        """
        if len(self._buffer) < 2:
            return _ACK_BYTES - 2 * len(self._buffer)
        return max(1, self._wanted() - len(self._buffer))

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order."""
        self._buffer += data
        frames: list[Frame] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        self._drop_noise()
        if len(self._buffer) < 4 or len(self._buffer) < self._wanted():
            return None
        mark = {(0, 0xFF): Mark.ACK, (0xFF, 0): Mark.NACK}.get((self._buffer[2], self._buffer[3]))
        if mark is not None:
            del self._buffer[: self._wanted()]
            return mark
        start, length = self._body()
        if not 1 <= length <= MAX_BODY_BYTES:
            return self._broken("the length and its checksum do not agree")
        body = bytes(self._buffer[start : start + length])
        if (sum(body) + self._buffer[start + length]) & 0xFF:
            return self._broken("the checksum is wrong")
        del self._buffer[: self._wanted()]
        return Body(body)

    def _drop_noise(self) -> None:
        at = self._buffer.find(_START)
        if at < 0:
            # A last 00 may be the first half of a start code.
            at = len(self._buffer) - (1 if self._buffer.endswith(b"\x00") else 0)
        del self._buffer[:at]

    def _wanted(self) -> int:
        """Length of the frame in the buffer, start code to postamble, as far as its bytes tell."""
        if len(self._buffer) < 4 or (self._buffer[2], self._buffer[3]) in {(0, 0xFF), (0xFF, 0)}:
            return 5
        start, length = self._body()
        if not 1 <= length <= MAX_BODY_BYTES:
            return start
        return start + length + 2

    def _body(self) -> tuple[int, int]:
        """Where the body starts and how long it is; length 0 when the length is damaged or still unknown."""
        length, check = self._buffer[2], self._buffer[3]
        if (length, check) == (0xFF, 0xFF):
            head = self._buffer[4:7]
            if len(head) < 3 or sum(head) & 0xFF:
                return 7, 0
            return 7, head[0] << 8 | head[1]
        return 4, 0 if (length + check) & 0xFF else length

    def _broken(self, reason: str) -> Broken:
        # Only the start code goes: the length may be what is damaged, and the next frame may be inside.
        del self._buffer[: len(_START)]
        return Broken(reason)
