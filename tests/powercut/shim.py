"""The shim, compiled and preloaded, and a program's end of it."""

import ctypes
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
_SOURCE: Final = Path(__file__).with_name("shim.c")
FAIL_WRITE: Final = 1  # as in shim.c
FAIL_SYNC: Final = 2


def compiled(directory: Path) -> Path:
    """The shim as a library in `directory`; needs `cc`."""
    library = directory / "powercut.so"
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", library, _SOURCE, "-ldl", "-lpthread"], check=True)
    return library


def environment(library: Path) -> dict[str, str]:
    """The environment of a program with the shim preloaded."""
    return {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}


class Shim:
    """The preloaded shim, for the program it is in. Raises OSError or AttributeError in any other."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.powercut_begin.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        self._library.powercut_mark.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        self._library.powercut_fail.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int]

    def begin(self, directory: Path, log: Path) -> None:
        """Log what happens to the files of `directory` (absolute, without links) from now on."""
        self._library.powercut_begin(os.fsencode(directory), os.fsencode(log))

    def end(self) -> None:
        """Log and fail nothing any more."""
        self._library.powercut_end()

    def mark(self, what: str, **said: Any) -> None:
        """Put a word into the log, after everything that the program did so far."""
        raw = json.dumps({"mark": what, **said}).encode()
        self._library.powercut_mark(raw, len(raw))

    def fail(self, kind: int, at: int, error: int, *, forever: bool) -> None:
        """Fail the `at`-th call of a kind from now on with this errno, and all after it if `forever`."""
        self._library.powercut_fail(kind, at, error, int(forever))

    @property
    def failed(self) -> bool:
        """Whether the call to fail has come."""
        return bool(self._library.powercut_failed())
