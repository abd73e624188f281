"""MIFARE Classic: memory behind sector keys.

Crypto1 is not modelled: the chip asks `Card.authenticate` and speaks in clear afterwards, which a client at
the PN532's host interface cannot tell. The access bits are not enforced, except that key A is never read.
Source: NXP MF1S50yyX/MF1S70yyX datasheets (memory organisation, 8.6).
"""

from typing import Final

from hardware.emulator.air import ACK, NAK, Air, with_crc

BLOCK_BYTES: Final = 16
TRANSPORT_KEY: Final = b"\xff" * 6

_READ: Final = 0x30
_WRITE: Final = 0xA0
_KEY_A: Final = 0x60
_KEY_B: Final = 0x61
_TRAILER: Final = TRANSPORT_KEY + bytes.fromhex("ff078069") + TRANSPORT_KEY
_SMALL_SECTORS: Final = 32
"""Sectors of 4 blocks; those above have 16."""


class ClassicCard:
    """The memory of one card, as delivered: every key is FF FF FF FF FF FF."""

    def __init__(self, uid: bytes, sak: int, blocks: int) -> None:
        self._uid = uid
        self.memory = [bytes(BLOCK_BYTES)] * blocks
        check = bytes((uid[0] ^ uid[1] ^ uid[2] ^ uid[3],)) if len(uid) == 4 else b""
        self.memory[0] = (uid + check + bytes((sak,))).ljust(BLOCK_BYTES, b"\0")
        for block in range(blocks):
            if _trailer_of(block) == block:
                self.memory[block] = _TRAILER
        self.forget()

    def forget(self) -> None:
        self._open_trailer: int | None = None
        self._waiting_block: int | None = None

    def authenticate(self, code: int, block: int, key: bytes, uid: bytes) -> bool:
        """Open the sector of `block` with key A (60) or B (61)."""
        self.forget()
        if code not in (_KEY_A, _KEY_B) or block >= len(self.memory) or uid != self._uid[-4:]:
            return False
        trailer = self.memory[_trailer_of(block)]
        if key != (trailer[:6] if code == _KEY_A else trailer[10:]):
            return False
        self._open_trailer = _trailer_of(block)
        return True

    def answer(self, command: bytes) -> Air | None:
        if self._waiting_block is not None:
            block, self._waiting_block = self._waiting_block, None
            return self._write(block, command)
        if len(command) != 2 or command[0] not in (_READ, _WRITE):
            return None
        block = command[1]
        if block >= len(self.memory) or _trailer_of(block) != self._open_trailer:
            return NAK
        if command[0] == _READ:
            return with_crc(self._readable(block))
        self._waiting_block = block
        return ACK

    def _write(self, block: int, data: bytes) -> Air:
        if len(data) != BLOCK_BYTES or block == 0:
            return NAK
        self.memory[block] = data
        return ACK

    def _readable(self, block: int) -> bytes:
        data = self.memory[block]
        return bytes(6) + data[6:] if _trailer_of(block) == block else data


def _trailer_of(block: int) -> int:
    """The last block of the sector, which holds its keys."""
    if block < _SMALL_SECTORS * 4:
        return block | 3
    return block | 15
