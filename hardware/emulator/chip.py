"""The PN532 at its host interface: bytes and times in, frames out. No I/O and no clock."""

from typing import Final

from hardware import framing
from hardware.commands import DEFAULT_BAUD
from hardware.emulator.card import Card
from hardware.emulator.firmware import Firmware, Search, SyntaxFault
from hardware.framing import Body, Frame, FrameDecoder, Mark

_WAKING_BYTES: Final = 4
"""A sleeping chip loses the first bytes on the serial line; this is why hosts send a preamble."""


class Chip:
    """One chip, with at most one card in front of it.

    Every method that may make the chip speak returns whole frames, in order. Between calls the chip holds no
    more than one frame from the host and one answer. `now_s` is any clock that does not run backwards.
    """

    def __init__(self) -> None:
        self._firmware = Firmware()
        self.power_cycle()

    def power_cycle(self) -> None:
        """Power-on, or a pulse on RSTPDN: everything is forgotten, the card stays where it is."""
        card = self.card
        self._firmware = Firmware()
        self._firmware.radio.put(card)
        self._decoder = FrameDecoder()
        self._running: tuple[int, Search, float] | None = None
        self._last = b""
        self._lost_bytes = _WAKING_BYTES
        self.baud = DEFAULT_BAUD

    @property
    def deadline_s(self) -> float | None:
        """When `advance` has to be called at the latest; None while nothing is going on."""
        if self._running is None or self._running[1].limit_s is None:
            return None
        return self._running[2]

    @property
    def card(self) -> Card | None:
        """The card in front of the antenna."""
        return self._firmware.radio.card

    def put(self, card: Card | None) -> None:
        """Present a card, or take it away (None). Call `advance` afterwards: somebody may wait for it."""
        self._firmware.radio.put(card)

    def wake(self) -> None:
        """The host has addressed the chip on I2C or SPI, which wakes it without losing anything."""
        self._lost_bytes = 0

    def receive(self, data: bytes, now_s: float, baud: int | None = None) -> list[bytes]:
        """Bytes from the host, sent at `baud` (None: a bus that has no such thing)."""
        if baud is not None and not self._hears(baud):
            return []
        if self._lost_bytes:
            lost = min(self._lost_bytes, len(data))
            self._lost_bytes -= lost
            data = data[lost:]
        out: list[bytes] = []
        for frame in self._decoder.feed(data):
            out += self._frame(frame, now_s)
        return out

    def advance(self, now_s: float) -> list[bytes]:
        """Time has passed, or a card has come: the frames that this brings."""
        if self._running is None:
            return []
        command, search, until_s = self._running
        found = search.find()
        if found is None and search.limit_s is not None and now_s >= until_s:
            found = search.nothing
        return [] if found is None else self._reply(command, found)

    def _hears(self, baud: int) -> bool:
        """Whether the chip can make sense of that speed; the new one is good once it has been announced."""
        if baud == self._firmware.new_baud:
            # A host that closes its port right after its ACK may take the ACK with it on a pty, where a real
            # line has sent it; so the new speed itself counts as the ACK.
            self._change_speed()
        return baud == self.baud

    def _change_speed(self) -> None:
        if self._firmware.new_baud is not None:
            self.baud, self._firmware.new_baud = self._firmware.new_baud, None

    def _frame(self, frame: Frame, now_s: float) -> list[bytes]:
        match frame:
            case Mark.ACK:
                self._running = None
                self._change_speed()
                return []
            case Mark.NACK:
                return [self._last] if self._last else []
            case Body(data):
                # A new command ends the one that is running.
                self._running = None
                return [framing.ACK, *self._command(data, now_s)]
            case _:
                return []  # damaged: the host gets no ACK and has to try again

    def _command(self, body: bytes, now_s: float) -> list[bytes]:
        if len(body) < 2 or body[0] != framing.HOST_TO_CHIP:
            return self._say(framing.ERROR_FRAME)
        try:
            answer = self._firmware.run(body[1], body[2:])
        except SyntaxFault:
            return self._say(framing.ERROR_FRAME)
        if isinstance(answer, bytes):
            return self._reply(body[1], answer)
        self._running = (body[1], answer, now_s + (answer.limit_s or 0))
        return self.advance(now_s)

    def _reply(self, command: int, params: bytes) -> list[bytes]:
        self._running = None
        if self._firmware.asleep:
            self._firmware.asleep = False
            self._lost_bytes = _WAKING_BYTES
        return self._say(framing.encode(bytes((framing.CHIP_TO_HOST, command + 1)) + params))

    def _say(self, frame: bytes) -> list[bytes]:
        self._last = frame
        return [frame]
