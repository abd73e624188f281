"""ISO/IEC 14443-4 half-duplex blocks (section 7), from the card's side and from the reader's.

PCB 0000 0c1b: CID follows / block number   I-block, bit 5 (10) chaining
PCB 1010 c01b                               R(ACK); 1011 c01b R(NAK)
PCB 1100 c010                               S(DESELECT)
"""

from typing import Final, Protocol

FRAME_SIZES: Final = (16, 24, 32, 40, 48, 64, 96, 128, 256)
"""By FSDI and FSCI; the bytes of a frame, CRC included."""
MAX_MESSAGE_BYTES: Final = 4096

_I: Final = 0x02
_R_ACK: Final = 0xA2
_R_NAK: Final = 0xB2
_DESELECT: Final = 0xC2
_CHAINING: Final = 0x10
_CID: Final = 0x08
_NUMBER: Final = 0x01
_PPS: Final = 0xD0


class _Apdus(Protocol):
    def apdu(self, command: bytes) -> bytes: ...


class CardBlocks:
    """The card's side; `deselected` tells that the last block ended the conversation."""

    def __init__(self, files: _Apdus) -> None:
        self._files = files
        self.start(b"\xe0\x80")

    def start(self, rats: bytes) -> None:
        """RATS tells how long a frame the reader takes."""
        index = rats[1] >> 4 if len(rats) > 1 else 0
        self._frame_bytes = FRAME_SIZES[min(index, len(FRAME_SIZES) - 1)]
        self.deselected = False
        self._number = 1
        self._command = bytearray()
        self._rest = b""
        self._last = b""

    def answer(self, block: bytes) -> bytes | None:
        """The card's next block, or None for one that no reader sends."""
        pcb = block[0]
        if pcb & 0xF7 == _DESELECT:
            self.deselected = True
            return block
        if pcb & 0xF0 == _PPS:
            return block[:1]
        inf = 2 if pcb & _CID else 1
        if pcb & 0xE2 == _I:
            return self._information(pcb, block[1:inf], block[inf:])
        if pcb & 0xE6 == 0xA2:
            return self._receipt(pcb, block[1:inf])
        return None

    def _information(self, pcb: int, cid: bytes, data: bytes) -> bytes | None:
        self._number = pcb & _NUMBER
        self._command += data
        if len(self._command) > MAX_MESSAGE_BYTES:
            return None
        if pcb & _CHAINING:
            return self._keep(bytes((_R_ACK | self._number | (pcb & _CID),)) + cid)
        command = bytes(self._command)
        self._command.clear()
        # An empty I-block is a presence check: it is answered with an empty one.
        self._rest = self._files.apdu(command) if command else b""
        return self._part(pcb & _CID, cid)

    def _receipt(self, pcb: int, cid: bytes) -> bytes:
        """R-blocks: go on with the answer, say the last block again, or say that we are still here."""
        number = pcb & _NUMBER
        if number == self._number:
            return self._last
        if pcb & 0xF0 == _R_NAK & 0xF0:
            return bytes((_R_ACK | self._number | (pcb & _CID),)) + cid
        self._number = number
        return self._part(pcb & _CID, cid)

    def _part(self, cid_flag: int, cid: bytes) -> bytes:
        room = self._frame_bytes - 3 - len(cid)
        part, self._rest = self._rest[:room], self._rest[room:]
        more = _CHAINING if self._rest else 0
        return self._keep(bytes((_I | self._number | more | cid_flag,)) + cid + part)

    def _keep(self, block: bytes) -> bytes:
        self._last = block
        return block


class ReaderBlocks:
    """The reader's side: the blocks that the chip's firmware makes of one message. No I/O.

    Give `start()` the message and pass what the card answers to `next()` until `done`.
    """

    def __init__(self, card_frame_bytes: int) -> None:
        self._room = card_frame_bytes - 3
        self._number = 0
        self._rest = b""
        self.answer = bytearray()
        self.done = False

    def start(self, message: bytes) -> bytes:
        """The first block."""
        self._rest, self.done = message, False
        self.answer = bytearray()
        return self._part()

    def next(self, block: bytes) -> bytes | None:
        """The block to send now; None when the card's answer is whole (`done`) or makes no sense."""
        pcb, more = block[0], block[0] & _CHAINING
        if pcb & 0xFE == _R_ACK and pcb & _NUMBER == self._number and self._rest:
            self._number ^= 1
            return self._part()
        if pcb & 0xEE != _I or pcb & _NUMBER != self._number:
            return None
        self.answer += block[1:]
        self._number ^= 1
        if more and len(self.answer) <= MAX_MESSAGE_BYTES:
            return bytes((_R_ACK | self._number,))
        self.done = not more
        return None

    def _part(self) -> bytes:
        part, self._rest = self._rest[: self._room], self._rest[self._room :]
        return bytes((_I | self._number | (_CHAINING if self._rest else 0),)) + part
