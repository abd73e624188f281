"""Which lamps and tones make up each signal, and the player that plays them without holding anybody up."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto

from hardware.signals import Signal


class Lamp(Flag):
    """The three lamps."""

    GREEN = auto()
    RED = auto()
    AMBER = auto()


DARK = Lamp(0)

BEEP_HZ = 2200
LOW_HZ = 220
WARN_HZ = 880


@dataclass(frozen=True, slots=True)
class Step:
    """What is on, and for how long; the last step of a pattern stays."""

    lamps: Lamp
    tone_hz: int = 0
    hold_s: float = 0.0


_READY = Step(Lamp.AMBER)

PATTERNS: dict[Signal, tuple[Step, ...]] = {
    Signal.READY: (_READY,),
    Signal.ACCEPTED: (Step(Lamp.GREEN, BEEP_HZ, 0.12), Step(Lamp.GREEN, 0, 0.9), _READY),
    Signal.ACCEPTED_CONCESSION: (
        Step(Lamp.GREEN, BEEP_HZ, 0.1),
        Step(Lamp.GREEN, 0, 0.1),
        Step(Lamp.GREEN, BEEP_HZ, 0.1),
        Step(Lamp.GREEN, 0, 0.7),
        _READY,
    ),
    Signal.REFUSED: (Step(Lamp.RED, LOW_HZ, 0.5), Step(Lamp.RED, 0, 0.9), _READY),
    Signal.TRY_AGAIN: (
        *(Step(Lamp.AMBER, WARN_HZ, 0.08), Step(DARK, 0, 0.12)) * 3,
        _READY,
    ),
    Signal.OUT_OF_SERVICE: (Step(DARK),),
}


class PatternPlayer:
    """Plays one pattern at a time on a thread of its own; a new one replaces the one that plays.

    `apply` sets the outputs of one step; `pace` stretches or shortens every hold.
    """

    def __init__(self, apply: Callable[[Step], None], *, pace: float = 1.0) -> None:
        self._apply = apply
        self._pace = pace
        self._changed = threading.Condition()
        self._next: tuple[Step, ...] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
        self._thread.start()

    def play(self, pattern: tuple[Step, ...]) -> None:
        """Start `pattern` and return at once."""
        with self._changed:
            self._next = pattern
            self._changed.notify()

    def close(self) -> None:
        """Stop, and wait until no step is applied any more."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        steps: tuple[Step, ...] = ()
        while True:
            hold_s = steps[0].hold_s * self._pace if len(steps) > 1 else None
            with self._changed:
                interrupted = self._changed.wait_for(self._has_news, hold_s)
                if self._closing:
                    return
                steps = self._take() if interrupted else steps[1:]
            self._apply(steps[0])

    def _has_news(self) -> bool:
        return self._closing or self._next is not None

    def _take(self) -> tuple[Step, ...]:
        pattern, self._next = self._next or (), None
        return pattern
