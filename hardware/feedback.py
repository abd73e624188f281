"""What a passenger sees and hears: light, sound, and one line of text.

The signals are those that people know from other validators: amber ready; green and one beep accepted; two
beeps for a concession; red and a low tone refused; a warning that is no refusal; and no light means broken.
"""

import sys
from collections import deque
from enum import Enum
from typing import IO, Protocol

from hardware.errors import BadSpec

_REMEMBERED = 1000


class Signal(Enum):
    """What the terminal has to say."""

    READY = "ready"
    ACCEPTED = "accepted"
    ACCEPTED_CONCESSION = "accepted-concession"
    REFUSED = "refused"
    TRY_AGAIN = "try-again"
    OUT_OF_SERVICE = "out-of-service"


class Feedback(Protocol):
    """Lights, sounds, text. May be called from any thread."""

    def show(self, signal: Signal, text: str = "") -> None:
        """Show `signal` at once, in place of what is being shown. Returns before the pattern has played.

        A verdict gives way to READY by itself after a moment; READY and OUT_OF_SERVICE stay. `text` is one
        short line for the passenger, for what can show it.
        """

    def close(self) -> None:
        """Everything off; closing twice is fine."""


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
