"""What farebox-tech prints, to whoever reads it."""

import os
import sys
from io import TextIOWrapper

from edge.errors import ControlError


def write_anything() -> None:
    """Print as an escape what the encoding of the screen lacks, instead of failing at it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print it, at once. Raises SystemExit with status 1 where nobody reads any more, such as `head`, and
    ControlError on a full disk.

    What is left goes nowhere then: Python would try it once more at exit, and complain. See "Note on SIGPIPE"
    in the documentation of Python's `signal`.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(1) from None
        raise ControlError(
            f"What there is to read cannot be written where it was to go ({error.strerror}). What the"
            " terminal was asked for is done."
        ) from error
