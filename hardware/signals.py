"""What a terminal tells a passenger, and the interface for whatever tells it.

The signals are those that people know from other validators: amber ready; green and one beep accepted; two
beeps for a concession; red and a low tone refused; a warning that is no refusal; and no light means broken.
"""

from enum import Enum
from typing import Protocol


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
