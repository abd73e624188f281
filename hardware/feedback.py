"""Showing signals: as text on a console, not at all, or (`hardware.feedback_gpio`) on the Pi's pins."""

import sys
from collections import deque
from typing import IO

from hardware.errors import BadSpec
from hardware.signals import Feedback, Signal

__all__ = ["ConsoleFeedback", "Feedback", "RecordingFeedback", "Signal", "open_feedback"]

_REMEMBERED = 1000


class RecordingFeedback:
    """The fake: remembers what was shown last, and shows nothing."""

    def __init__(self) -> None:
        self.shown: deque[tuple[Signal, str]] = deque(maxlen=_REMEMBERED)
        self.closed = False

    def show(self, signal: Signal, text: str = "") -> None:
        if not self.closed:
            self.shown.append((signal, text))

    def close(self) -> None:
        self.closed = True


class ConsoleFeedback:
    """A line of text on a terminal or in a log."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._closed = False

    def show(self, signal: Signal, text: str = "") -> None:
        if self._closed:
            return
        self._stream.write(f"{_MARKS[signal]} {signal.value}{': ' if text else ''}{_printable(text)}\n")
        self._stream.flush()

    def close(self) -> None:
        self._closed = True


def open_feedback(spec: str) -> Feedback:
    """The feedback that `spec` names: `console`, `none`, or `gpio`, with pins as in `gpio,green=17,red=27`.

    The pins (BCM numbers) are green 17, red 27, amber 22 and buzzer 18 unless named. Raises BadSpec, or
    FeedbackMissing on a machine without such pins.
    """
    if spec == "console":
        return ConsoleFeedback()
    if spec == "none":
        return RecordingFeedback()
    kind, *options = spec.split(",")
    if kind != "gpio":
        raise BadSpec(f'"{spec}" names no feedback; expected "console", "gpio" or "none".')
    # Only here: on a machine without pins gpiozero looks for them in vain, and says so.
    from hardware.feedback_gpio import open_gpio_feedback

    return open_gpio_feedback(options)


_MARKS = {
    Signal.READY: "[ amber ]",
    Signal.ACCEPTED: "[ GREEN ]",
    Signal.ACCEPTED_CONCESSION: "[ GREEN ]",
    Signal.REFUSED: "[  RED  ]",
    Signal.TRY_AGAIN: "[ AMBER ]",
    Signal.OUT_OF_SERVICE: "[       ]",
}


def _printable(text: str) -> str:
    # The text may carry a name from a card or a server: no escape sequences on somebody's terminal.
    return "".join(char if char.isprintable() else "?" for char in text)
