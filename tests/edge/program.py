"""The real programs: an emulated reader and a terminal, each a process, with their files in one directory."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crdt.fleet import FleetSettings
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from crdt.store.keyfile import load_key
from edge.settings import Settings, load_settings
from edge.terminal import Terminal
from tests import forked
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, PATIENCE_S, pair

ROOT = Path(__file__).parents[2]


class Program:
    """A process whose output is read line by line; killed at the latest when its `with` block ends."""

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """`arguments`: of `python -m`. `within`: the command that runs it elsewhere, in a namespace."""
        options: dict[str, Any] = {
            "cwd": ROOT,
            "env": {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
        }
        self.process: subprocess.Popen[str]
        if within:
            command = [*within, sys.executable, "-m", *arguments]
            self.process = subprocess.Popen(command, text=True, **options)  # noqa: S603  (our own programs)
        else:
            self.process = forked.Process(*arguments, **options)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_lines),
            threading.Thread(target=self._read_errors),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.ended()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()

    def line(self) -> str | None:
        """The next line of standard output; None at its end."""
        return self._lines.get(timeout=PATIENCE_S)

    def line_with(self, text: str) -> str:
        """The next line that contains `text`."""
        while (line := self.line()) is not None:
            if text in line:
                return line
        raise AssertionError(f"the program ended without saying {text!r}: {self.errors}")

    def say(self, text: str) -> None:
        """A line for its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def ended(self) -> int:
        """Wait for its end and the last of its output; the exit code."""
        code = self.process.wait(PATIENCE_S)
        for thread in self._threads:
            thread.join()
        return code

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> list[str]:
        """kill -9; the lines it had still printed."""
        self.process.kill()
        self.ended()
        rest: list[str] = []
        while (line := self.line()) is not None:
            rest.append(line)
        return rest

    @property
    def errors(self) -> str:
        """Its standard error so far; all of it after `ended`."""
        return "".join(self._errors)

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)


@dataclass(frozen=True)
class Bus:
    """A terminal's files: settings, key, ledger, and the link to its emulated reader."""

    directory: Path

    @property
    def settings_file(self) -> Path:
        return self.directory / "edge.toml"

    @property
    def settings(self) -> Settings:
        return load_settings(self.settings_file)

    def configure(self, more: str = "", feedback: str = "console", *, peers: bool = False) -> None:
        """Write the settings file: console feedback, emulated reader, no search for hubs."""
        self.settings_file.write_text(
            f"""
            state_directory = "state"
            [terminal]
            name = "Bus 12 front"
            route = "12"
            vehicle = "bus 12"
            [store]
            key_file = "edge.key"
            [reader]
            device = "uart:{self.directory / "reader"}"
            [feedback]
            device = "{feedback}"
            [discovery]
            enabled = false
            [peers]
            enabled = {str(peers).lower()}
            seal_after_s = 1.0
            {more}
            """
        )

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """The ledger's database, while no terminal runs on it."""
        settings = self.settings
        settings.state_directory.mkdir(exist_ok=True)
        key = load_key(settings.store_key_file, settings.database, {})
        with Database.open(settings.database, key, layout=TERMINAL_LAYOUT) as database:
            yield database

    def enrol(self, fleet: Fleet, fares: FleetSettings = FARES) -> None:
        """Pair it without a hub."""
        with self.database() as database:
            pair(Terminal(database), fleet, fares)

    def reader(self) -> Program:
        """Start the emulated reader; ready on return."""
        reader = Program(["hardware.emulator", "--link", str(self.directory / "reader")])
        reader.line()
        return reader

    def terminal(self, environment: Mapping[str, str] | None = None, within: Sequence[str] = ()) -> Program:
        """Start the terminal."""
        return Program(["edge", "--settings", str(self.settings_file)], environment, within)
