"""A line to the chip on which things go wrong when asked to, so that recovery is really exercised."""

import random
from enum import Enum

from hardware import framing
from hardware.emulator.chip import Chip

_NOISE_BYTES = 40


class Fault(Enum):
    """What can be injected. The first group hits the next frame it fits; the second lasts until cured."""

    DROP_ACK = "drop-ack"
    DROP_ANSWER = "drop-answer"
    TRUNCATE = "truncate"
    FLIP = "flip"
    NOISE = "noise"
    OVERSIZE = "oversize"
    REPLAY = "replay"
    ERROR_FRAME = "error-frame"

    DEAF_UNTIL_ABORT = "deaf-until-abort"
    DEAF_UNTIL_WAKE = "deaf-until-wake"
    DEAF_UNTIL_RESET = "deaf-until-reset"


_DEAF = {
    Fault.DEAF_UNTIL_ABORT: framing.ACK,
    Fault.DEAF_UNTIL_WAKE: b"\x55\x55",
    Fault.DEAF_UNTIL_RESET: None,
}


class FaultyLine:
    """A chip and its line; flawless until `inject` is called. Same calls as `Chip`."""

    def __init__(self, chip: Chip, seed: int = 0) -> None:
        self.chip = chip
        self._random = random.Random(seed)  # noqa: S311  (noise, not a secret)
        self._next: list[Fault] = []
        self._deaf: Fault | None = None
        self._previous = b""

    def inject(self, fault: Fault) -> None:
        """Let this go wrong next; faults of the first group queue up."""
        if fault in _DEAF:
            self._deaf = fault
        else:
            self._next.append(fault)

    def power_cycle(self) -> None:
        """The chip's reset, which also ends a deafness."""
        self._deaf = None
        self.chip.power_cycle()

    def receive(self, data: bytes, now_s: float, baud: int | None = None) -> list[bytes]:
        """Bytes from the host; returns what reaches it."""
        if self._deaf is not None:
            cure = _DEAF[self._deaf]
            if cure is None or cure not in data:
                return []
            self._deaf = None
        return self._spoil(self.chip.receive(data, now_s, baud))

    def advance(self, now_s: float) -> list[bytes]:
        """Time has passed; returns what reaches the host."""
        frames = self.chip.advance(now_s)
        return [] if self._deaf is not None else self._spoil(frames)

    def _spoil(self, frames: list[bytes]) -> list[bytes]:
        out = []
        for frame in frames:
            spoiled = self._spoil_one(frame)
            if frame != framing.ACK:
                self._previous = frame
            if spoiled:
                out.append(spoiled)
        return out

    def _spoil_one(self, frame: bytes) -> bytes:
        is_ack = frame == framing.ACK
        if not self._next or is_ack is not (self._next[0] is Fault.DROP_ACK):
            return frame
        match self._next.pop(0):
            case Fault.TRUNCATE:
                return frame[: len(frame) // 2]
            case Fault.FLIP:
                at = self._random.randrange(3, len(frame) - 1)
                return frame[:at] + bytes((frame[at] ^ 1 << self._random.randrange(8),)) + frame[at + 1 :]
            case Fault.NOISE:
                return self._random.randbytes(_NOISE_BYTES).replace(b"\x00\xff", b"\x00\xfe") + frame
            case Fault.OVERSIZE:
                return b"\x00\x00\xff\xff\xff\xff\xff\x02" + frame * 8
            case Fault.REPLAY:
                return self._previous or frame
            case Fault.ERROR_FRAME:
                return framing.ERROR_FRAME
            case _:
                return b""
