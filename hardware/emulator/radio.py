"""The PN532's contactless side: its field, its registers, and the one card that may be in front of it."""

from dataclasses import dataclass, field
from typing import Final

from hardware.cards import PresentedCard
from hardware.commands import Status
from hardware.emulator.air import (
    CASCADE_TAG,
    RATS,
    REQA,
    SAK_INCOMPLETE,
    SAK_ISO_DEP,
    SELECT,
    WUPA,
    Air,
    crc_a,
    with_crc,
    without_crc,
)
from hardware.emulator.card import Card
from hardware.emulator.isodep import FRAME_SIZES, ReaderBlocks

TX_MODE: Final = 0x6302
RX_MODE: Final = 0x6303
TX_CONTROL: Final = 0x6304
MANUAL_RCV: Final = 0x630D
FIFO_DATA: Final = 0x6339
CONTROL: Final = 0x633C
BIT_FRAMING: Final = 0x633D

_CRC_ON: Final = 0x80
_FRAMING: Final = 0x03
"""0 is type A; the only cards here are."""
_PARITY_OFF: Final = 0x10
_LAST_BITS: Final = 0x07
_FIELD_ON: Final = 0x03
_RATS_64_BYTES: Final = bytes((RATS, 0x50))
_DEFAULT_FSCI: Final = 2
_MAX_BLOCKS: Final = 1024

_POWER_ON: Final = {TX_MODE: 0x80, RX_MODE: 0x80, TX_CONTROL: 0x80, 0x6305: 0x40, 0x6327: 0x80}


@dataclass(slots=True)
class Target:
    """The card that InListPassiveTarget or InAutoPoll has activated; always number 1."""

    card: Card
    seen: PresentedCard
    blocks: ReaderBlocks | None
    """For a card that was brought to ISO 14443-4."""
    outgoing: bytearray = field(default_factory=bytearray)
    incoming: bytearray = field(default_factory=bytearray)


class Radio:
    """Sends to and hears from the card, as the registers are set."""

    def __init__(self) -> None:
        self.card: Card | None = None
        self.target: Target | None = None
        self.registers: dict[int, int] = dict(_POWER_ON)

    def put(self, card: Card | None) -> None:
        """Another card in front of the antenna, or none; it starts without power."""
        self.card = card
        if card is not None:
            card.power_off()

    @property
    def field_is_on(self) -> bool:
        return bool(self.registers[TX_CONTROL] & _FIELD_ON)

    def field(self, on: bool) -> None:
        """Switch the field; without it, cards forget everything and targets are lost."""
        if on:
            self.registers[TX_CONTROL] |= _FIELD_ON
            return
        self.registers[TX_CONTROL] &= ~_FIELD_ON
        self.target = None
        if self.card is not None:
            self.card.power_off()

    def read(self, address: int) -> int:
        return self.registers.get(address, 0)

    def write(self, address: int, value: int) -> None:
        self.registers[address] = value

    def thru(self, data: bytes) -> bytes:
        """InCommunicateThru: `data` as the registers frame it; returns status and what was heard."""
        answer = self._send(data)
        if answer is None:
            return bytes((Status.TIMEOUT,))
        self._set_bits(CONTROL, _LAST_BITS, answer.last_bits)
        if not self.read(RX_MODE) & _CRC_ON:
            return bytes((Status.OK,)) + answer.data
        heard = without_crc(answer)
        return bytes((Status.CRC,)) if heard is None else bytes((Status.OK,)) + heard

    def activate(self, wanted: bytes, rats: bool) -> Target | None:
        """Find a type A card and select it, `wanted` with its cascade tags if not empty.

        How the real firmware comes back to a card it activated before is not documented, only that it finds
        it again; so here the card loses the field for a moment.
        """
        self.field(False)
        self.field(True)
        self.registers.update({TX_MODE: _CRC_ON, RX_MODE: _CRC_ON, BIT_FRAMING: 0, MANUAL_RCV: 0})
        atqa = self._hear(Air(bytes((WUPA,)), 7))
        self.write(FIFO_DATA, REQA if atqa is None else 0)
        if self.card is None or atqa is None:
            return None
        found = self._select()
        if found is None or (wanted and wanted != found[1]):
            return None
        uid, _, sak = found
        ats = self._rats() if rats and sak & SAK_ISO_DEP else b""
        blocks = ReaderBlocks(_frame_bytes(ats)) if ats else None
        self.target = Target(self.card, PresentedCard(uid, atqa.data[::-1], sak, ats), blocks)
        return self.target

    def exchange(self, target: Target, data: bytes) -> bytes | Status:
        """What the selected card answers to `data`; a Status other than OK when it does not."""
        if target.blocks is None:
            answer = self._hear(with_crc(data))
            if answer is None:
                return Status.TIMEOUT
            if answer.last_bits:
                return b"" if answer.data == b"\x0a" else Status.FORMAT
            heard = without_crc(answer)
            return Status.CRC if heard is None else heard
        block: bytes | None = target.blocks.start(data)
        for _ in range(_MAX_BLOCKS):
            if block is None:
                break
            answer = self._hear(with_crc(block))
            heard = None if answer is None else without_crc(answer)
            if heard is None:
                return Status.TIMEOUT
            block = target.blocks.next(heard)
        return bytes(target.blocks.answer) if target.blocks.done else Status.FORMAT

    def deselect(self) -> None:
        """S(DESELECT) or HLTA: the card stays quiet until it is woken."""
        if self.target is not None:
            self._hear(with_crc(b"\xc2" if self.target.blocks else b"\x50\x00"))

    def _select(self) -> tuple[bytes, bytes, int] | None:
        """Anticollision through every cascade level: UID, UID with cascade tags, SAK."""
        uid = full = b""
        for code in SELECT:
            heard = self._hear(Air(bytes((code, 0x20))))
            if heard is None or len(heard.data) != 5:
                return None
            full += heard.data[:4]
            sak = self._hear(with_crc(bytes((code, 0x70)) + heard.data))
            answer = None if sak is None else without_crc(sak)
            if not answer:
                return None
            if not answer[0] & SAK_INCOMPLETE:
                return uid + heard.data[:4], full, answer[0]
            if heard.data[0] != CASCADE_TAG:
                return None
            uid += heard.data[1:4]
        return None

    def _rats(self) -> bytes:
        answer = self._hear(with_crc(_RATS_64_BYTES))
        return (answer and without_crc(answer)) or b""

    def _send(self, data: bytes) -> Air | None:
        bits = self.read(BIT_FRAMING) & _LAST_BITS
        if not data or self.read(TX_MODE) & _FRAMING or self.read(MANUAL_RCV) & _PARITY_OFF:
            return None
        crc = crc_a(data) if self.read(TX_MODE) & _CRC_ON and not bits else b""
        self.field(True)
        return self._hear(Air(data + crc, bits))

    def _hear(self, frame: Air) -> Air | None:
        return None if self.card is None else self.card.receive(frame)

    def _set_bits(self, address: int, mask: int, value: int) -> None:
        self.registers[address] = self.read(address) & ~mask | value & mask


def _frame_bytes(ats: bytes) -> int:
    """FSC from the ATS (ISO/IEC 14443-4, 5.2.3)."""
    fsci = ats[1] & 0x0F if len(ats) > 1 else _DEFAULT_FSCI
    return FRAME_SIZES[min(fsci, len(FRAME_SIZES) - 1)]
