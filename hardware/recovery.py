"""The recovery ladder: what is tried, in order, when the reader does not answer as it should.

Readers wedge in the field for days until somebody cuts their power. Each rung costs more than the one before
and helps against more:

    abort    a command that nobody waits for is still running
    wake     the chip fell asleep, or restarted with its defaults (a dip in the supply)
    sweep    a program that was killed left it at another speed
    reopen   the serial adapter was unplugged and is back
    reset    the chip hangs; needs a wire to its RSTPDN
"""

import logging
from collections.abc import Callable
from enum import IntEnum

from hardware.commands import Command
from hardware.errors import NoSuchRung, ReaderError, ReaderLost
from hardware.links import Link
from hardware.reader import FirmwareVersion

_log = logging.getLogger(__name__)


class Rung(IntEnum):
    """The steps of the ladder, cheapest first."""

    ABORT = 0
    WAKE = 1
    SWEEP = 2
    REOPEN = 3
    RESET = 4


def climb(link: Link, first: Rung, problem: ReaderError, ready: Callable[[FirmwareVersion], None]) -> Rung:
    """Try the rungs from `first` up until the chip says its version and `ready` can set it up again.

    `problem` is what made it necessary. Returns the rung that helped. Raises ReaderLost when none did.
    Bounded: each rung is a few commands with time-outs of their own. A silent line takes three seconds in
    all, one that dribbles noise ten.
    """
    for rung in list(Rung)[first:]:
        try:
            ready(_STEPS[rung](link))
        except NoSuchRung:
            continue
        except ReaderError as error:
            _log.info("reader: %s did not help: %s", rung.name.lower(), error)
            problem = error
        else:
            _log.warning("reader: recovered by %s", rung.name.lower())
            return rung
    raise ReaderLost(
        f"The card reader does not come back: {problem} Check its power and its wires; one that hangs"
        " needs its supply cut, or a wire to its reset pin."
    ) from problem


def _abort(link: Link) -> FirmwareVersion:
    link.abort()
    return version(link)


def version(link: Link) -> FirmwareVersion:
    """Ask the chip for its firmware version. Raises ReaderFault."""
    answer = link.call(Command.GET_FIRMWARE_VERSION, answer_bytes=4)
    return FirmwareVersion(*answer.ljust(4, b"\0")[:4])


_STEPS: dict[Rung, Callable[[Link], FirmwareVersion]] = {
    Rung.ABORT: _abort,
    Rung.WAKE: lambda link: link.connect(),
    Rung.SWEEP: lambda link: link.sweep(),
    Rung.REOPEN: lambda link: link.reopen(),
    Rung.RESET: lambda link: link.reset(),
}
