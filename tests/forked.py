"""Farebox's programs without their start: forked from a process in which all that they need is imported.

A start is a second of a core, nearly all of it imports, and the tests start more than a hundred programs.
These are processes like others, with arguments, environment, directory and streams of their own; only the
imports are not done anew, and all that any program imports is there. What a start itself does is tested where
a program is started in full: `demo/`, `test_house.py`, `test_newcomer.py`, and wherever the environment says
what an interpreter reads when it starts.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
IMPORTED: Final = (
    *("hub.cli", "hub.app", "hub.demo", "edge.app", "hardware.emulator.pty_line"),
    *("tests.crdt.store.merger", "tests.crdt.store.tapper"),
)
_READ_AT_START: Final = (
    *("LC_ALL", "LC_CTYPE", "LANG", "PYTHONUTF8", "PYTHONIOENCODING"),
    *("PYTHONDEVMODE", "PYTHONWARNINGS", "PYTHONHASHSEED"),
)
_MAX_REQUEST_BYTES: Final = 100_000
_STREAMS: Final = 3
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h

_origin: list[socket.socket] = []  # to the process that is forked, while there is one
_lock = threading.Lock()


class Process(subprocess.Popen[str]):
    """`python -m module arguments…`, as a process of the caller. Started in full where nothing is `ready`."""

    def __init__(self, module: str, *arguments: str, **options: Any) -> None:
        """`options` are those of Popen; of them `stdin`, `stdout`, `stderr`, `cwd` and `env` may be given."""
        super().__init__([sys.executable, "-m", module, *arguments], text=True, **options)

    def _execute_child(self, args: list[str], *rest: Any) -> None:
        """In place of fork and exec; what else there is in Popen is as good for a process that is forked."""
        _, _, _, _, cwd, env, _, _, _, *pipes = rest[:15]
        if not _origin or _starts_otherwise(env):
            super()._execute_child(args, *rest)  # type: ignore[misc]  # not in typeshed: it is private
            return
        theirs = [pipes[0], pipes[3], pipes[5]]
        streams = [number if pipe == -1 else pipe for number, pipe in enumerate(theirs)]
        self._child_created = True
        self.pid = _fork(args[2:], os.fspath(cwd or Path.cwd()), os.environ if env is None else env, streams)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]  # the same


def run(module: str, *arguments: str, timeout_s: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end; what it printed is in the result where the streams are pipes."""
    with Process(module, *arguments, **options) as program:
        try:
            out, err = program.communicate(timeout=timeout_s)
        except BaseException:  # nobody waits for it any more
            program.kill()
            raise
    return subprocess.CompletedProcess([module, *arguments], program.returncode, out, err)


@contextmanager
def ready() -> Iterator[None]:
    """Have the process that is forked; it is there at once, and imports meanwhile."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        _origin.append(ours)
        try:
            yield
        finally:
            _origin.clear()
            process.kill()  # it may still import
            process.wait()


def _starts_otherwise(environment: Mapping[str, str] | None) -> bool:
    """Whether a start reads of this environment what one that was forked has read already."""
    mine = os.environ
    return environment is not None and any(environment.get(name) != mine.get(name) for name in _READ_AT_START)


def _fork(arguments: list[str], directory: str, environment: Mapping[str, str], streams: list[int]) -> int:
    """The process id of a new child of this process."""
    request = json.dumps([arguments, directory, dict(environment)]).encode()
    with _lock, _adopting():
        socket.send_fds(_origin[0], [request], streams)
        child = int(_origin[0].recv(32))
        _origin[0].recv(1)  # its parent has ended, so it is ours
    return child


@contextmanager
def _adopting() -> Iterator[None]:
    """Whoever loses its parent among this process's descendants becomes a child of this one meanwhile."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _serve(asked: socket.socket) -> tuple[bytes, list[int]] | None:
    """Fork for each request. Returns in each child with what it shall be, and with nothing in the end."""
    while True:
        request, streams, _, _ = socket.recv_fds(asked, _MAX_REQUEST_BYTES, _STREAMS)
        if not request:
            return None
        between = os.fork()
        if not between:
            parent = os.getpid()
            if child := os.fork():
                asked.send(str(child).encode())
                os._exit(0)
            while os.getppid() == parent:  # microseconds
                os.sched_yield()
            return request, streams
        os.waitpid(between, 0)
        asked.send(b".")
        for stream in streams:
            os.close(stream)


def _become(request: bytes, streams: list[int]) -> None:
    """Run the module as `python -m` does, in the process that was forked for it."""
    arguments, directory, environment = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    at_once = "PYTHONUNBUFFERED" in environment
    sys.stdin = open(0, closefd=False)  # noqa: SIM115, PTH123  (as long as the process)
    sys.stdout = io.TextIOWrapper(_writer(1, at_once=at_once), write_through=at_once)
    sys.stderr = io.TextIOWrapper(_writer(2, at_once=True), errors="backslashreplace", write_through=True)
    sys.argv, sys.path[0] = arguments, directory
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _writer(number: int, *, at_once: bool) -> Any:
    return open(number, "wb", buffering=0 if at_once else -1, closefd=False)  # noqa: SIM115, PTH123


def main(number: str) -> None:
    """Import, and be forked until nobody can ask any more."""
    with socket.socket(fileno=int(number)) as asked:
        for module in IMPORTED:
            importlib.import_module(module)
        gc.collect()
        gc.freeze()
        job = _serve(asked)
    if job:
        _become(*job)


if __name__ == "__main__":
    main(sys.argv[1])
