"""Runs a program that must not outlive its parent: `python leash.py PARENT_PID PROGRAM ARGUMENT...`.

The kernel sends SIGTERM when the parent dies, however it died (prctl(2), PR_SET_PDEATHSIG), so that a
killed demo leaves no hub and no terminals behind. A script of its own, because a hook between fork and exec
is not safe in a process with threads.
"""

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> None:
    """Does not return: the process becomes PROGRAM, or ends because its parent is gone already."""
    parent, program = int(arguments[0]), arguments[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted; the demo names the program


if __name__ == "__main__":
    main(sys.argv[1:])
