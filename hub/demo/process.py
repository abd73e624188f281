"""A process of the demo: started, watched, killed, stopped; its output kept for the day it dies."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from .errors import ChildDied, NotAnswering

LEASH: Final = Path(__file__).with_name("leash.py")
MAX_LINE_BYTES: Final = 16 * 1024
KEPT_LINES: Final = 200
STOP_TIMEOUT_S: Final = 8.0


class Child:
    """One program and the processes it has been in turn; `on_line` gets each line of its standard output.

    Standard error goes to the log file as it is. `on_death` is called with the child when it ends unasked.
    """

    def __init__(
        self,
        name: str,
        program: Sequence[str],
        log: Path,
        *,
        on_line: Callable[[str], None] | None = None,
        on_death: Callable[["Child"], None] | None = None,
    ) -> None:
        self.name = name
        # -P: the directory the demo is started in may have a `hub` of its own.
        self._program = [sys.executable, "-P", *program]
        self._log = log
        self._on_line = on_line
        self._on_death = on_death
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self._spoke = asyncio.Condition()
        self._ended_on_purpose = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The process id; NotAnswering when it is not running."""
        return self._alive().pid

    async def start(self) -> None:
        """Starts the program; returns at once."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self._ended_on_purpose = False
        self._said.clear()
        self._process = await self._spawn()
        self._watcher = asyncio.create_task(self._watch(self._process), name=f"watch {self.name}")

    async def wait_for(self, wanted: Callable[[str], bool], timeout_s: float) -> str:
        """The first line of output, of this run, that is wanted; ChildDied when there is none in time."""
        try:
            async with asyncio.timeout(timeout_s), self._spoke:
                while True:
                    for line in self._said:
                        if wanted(line):
                            return line
                    if not self.running:
                        raise await self.obituary("ended before it was ready")
                    await self._spoke.wait()
        except TimeoutError:
            raise await self.obituary(f"was not ready within {timeout_s:.0f} s") from None

    async def say(self, line: str) -> None:
        """Writes one line to its standard input."""
        process = self._alive()
        if process.stdin is None:
            raise RuntimeError(f"{self.name} has no standard input")
        try:
            process.stdin.write(line.encode() + b"\n")
            await process.stdin.drain()
        except ConnectionError:
            raise NotAnswering(f"{self.name} does not take commands any more") from None

    async def kill(self) -> None:
        """kill -9; returns when it is gone and everything it had printed has been handed on."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Asks it to end (SIGTERM), and kills it when it does not within 8 s."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            await self._end(signal.SIGKILL)

    async def obituary(self, what: str) -> ChildDied:
        """An error that says what happened and shows the last lines the process left."""
        lines = await asyncio.to_thread(self._last_lines, 12)
        last = "\n".join(f"    {line}" for line in lines) or "    (it printed nothing)"
        return ChildDied(
            f"{self.name} {what}. Its last lines:\n{last}\n  (--directory DIR keeps the whole logs.)"
        )

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(LEASH), str(os.getpid())),
                *self._program,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # Ctrl-C in the terminal is for the demo, which then stops its children in order.
                start_new_session=True,
            )

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is not None:
            await self._read_lines(process.stdout)
        await process.wait()
        async with self._spoke:
            self._spoke.notify_all()
        if not self._ended_on_purpose and self._on_death is not None:
            self._on_death(self)

    async def _read_lines(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while data := await stream.read(MAX_LINE_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                await self._heard(line)
            rest = rest[:MAX_LINE_BYTES]
        if rest:
            await self._heard(rest)

    async def _heard(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip("\r")
        async with self._spoke:
            self._said.append(line)
            self._spoke.notify_all()
        if self._on_line is not None:
            self._on_line(line)

    def _last_lines(self, count: int) -> list[str]:
        """Up to `count` last lines of its log, or of its standard output where the log is empty."""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - MAX_LINE_BYTES))
            if lines := log.read().decode(errors="replace").splitlines():
                return lines[-count:]
        return list(self._said)[-count:]

    async def _end(self, how: signal.Signals) -> None:
        self._ended_on_purpose = True
        if self._process is None or self._watcher is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(how)
        await asyncio.shield(self._watcher)

    def _alive(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            raise NotAnswering(f"{self.name} is not running")
        return self._process
