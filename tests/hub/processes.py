"""The hub as a real process, `python -m hub`, in a directory of its own."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub import founding
from hub.cli import main
from hub.places import Places
from tests import forked

PASSWORD = "correct horse"


class HubProcess:
    """Settings and state in one directory, and the process that is started on them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = directory / "hub.toml"
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return forked.run(
            *("hub", *arguments, "--settings", str(self.settings)),
            env={**os.environ, "FAREBOX_OPERATOR_PASSWORD": PASSWORD, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout_s=60,
        )

    def init(self) -> subprocess.CompletedProcess[str]:
        """`farebox-hub init`, on any free port and without zeroconf."""
        done = self.command(
            "init",
            *("--state-directory", str(self.directory / "state")),
            *("--key-file", str(self.directory / "hub.key"), "--port", "0"),
        )
        if done.returncode == 0:
            self.stay_at_home()
        return done

    def stay_at_home(self) -> None:
        """Nothing outside this machine hears of the hub."""
        with self.settings.open("a") as file:
            file.write('host = "127.0.0.1"\n\n[announce]\nenabled = false\n')

    def start(self) -> str:
        """`farebox-hub run`; returns its URL once it is up."""
        with (self.directory / "log.txt").open("a") as log:
            arguments = ("run", "--settings", str(self.settings))
            self._process = forked.Process("hub", *arguments, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "is up: " in line, (self.directory / "log.txt").read_text()
        self.url = line.split("is up: ")[1].strip()
        return self.url

    def stop(self, how: signal.Signals) -> int:
        """Send a signal and wait; the exit status."""
        assert self._process is not None
        self._process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        """Wait until it ends; the exit status."""
        assert self._process is not None
        process, self._process = self._process, None
        process.communicate(timeout=60)
        return process.returncode


class Shell:
    """Runs commands in the test's process, which spares each a start, and reads what they print."""

    def __init__(self, hub: HubProcess, capsys: pytest.CaptureFixture[str]) -> None:
        self._hub = hub
        self._capsys = capsys

    def __call__(self, *arguments: str, status: int = 0) -> str:
        assert main([*arguments, "--settings", str(self._hub.settings)]) == status
        printed = self._capsys.readouterr()
        return printed.err if status else printed.out

    def sentence(self, *arguments: str) -> str:
        """The one line on standard error of a command that fails as it should."""
        (line,) = self(*arguments, status=1).strip().splitlines()
        assert line.startswith("farebox-hub: ")
        return line


@contextlib.contextmanager
def hub_process(directory: Path) -> Iterator[HubProcess]:
    """A founded hub; killed at the end if it still runs."""
    hub = HubProcess(directory)
    places = Places(hub.settings, directory / "state", directory / "hub.key")
    founding.found(founding.write_settings(places, 0), PASSWORD, {})
    hub.stay_at_home()
    try:
        yield hub
    finally:
        if hub._process is not None:
            hub.stop(signal.SIGKILL)
