"""What farebox-tech prints, to whoever reads it."""

import os
import sys


def say(text: str) -> None:
    """Print it, at once. Raises SystemExit with status 1 where nobody reads any more, such as `head`.

    What is left goes nowhere then: Python would try it once more at exit, and complain. See "Note on SIGPIPE"
    in the documentation of Python's `signal`.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
