"""Where the demo's processes live, and the settings files they start from."""

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from .cast import BusRole
from .control import MAX_SOCKET_PATH_BYTES
from .errors import DemoError

LOOPBACK: Final = "127.0.0.1"
LONGEST_BELOW: Final = len("/bus-1/state/control.sock")
PORT_TRIES: Final = 100
_NEVER_GIVEN: Final = range(20_000, 32_768)  # Linux gives ports from 32768, others from 49152

Settings = Mapping[str, Mapping[str, str | int | float | bool | list[str]]]


@dataclass(frozen=True, slots=True)
class Place:
    """One process's directory: its settings, its state, its key (never inside the state) and its log."""

    directory: Path

    @property
    def settings(self) -> Path:
        return self.directory / "settings.toml"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def key_file(self) -> Path:
        return self.directory / "ledger.key"

    @property
    def control_socket(self) -> Path:
        return self.state / "control.sock"

    @property
    def reader(self) -> Path:
        """The emulated reader's serial device."""
        return self.directory / "reader"

    @property
    def log(self) -> Path:
        return self.directory / "log.txt"


@dataclass(frozen=True, slots=True)
class Home:
    """The demo's directory. Raises DemoError when it cannot be used."""

    directory: Path

    def prepare(self) -> None:
        """Makes sure that the directory is there, empty, and short enough for Unix sockets below it."""
        if len(bytes(self.directory)) + LONGEST_BELOW > MAX_SOCKET_PATH_BYTES:
            raise DemoError(
                f"The path {self.directory} is too long for Unix sockets. Choose a shorter --directory."
            )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            used = any(self.directory.iterdir())
        except OSError as error:
            raise DemoError(f"The directory {self.directory} cannot be used: {error.strerror}.") from error
        if used:
            raise DemoError(f"The directory {self.directory} is not empty. Give the demo one of its own.")

    def place(self, name: str) -> Place:
        """The directory of one process; `write_settings` makes it."""
        return Place(self.directory / name)


def hub_settings(place: Place, port: int) -> Settings:
    """The hub's settings: this machine only, so that no real bus in reach meets the demo."""
    return {
        "": {"state_directory": str(place.state)},
        "store": {"key_file": str(place.key_file)},
        "server": {"host": LOOPBACK, "port": port},
        "announce": {"name": "Farebox demo", "interfaces": [LOOPBACK]},
        "terminals": {"online_s": 10},
        "pairing": {"attempts_per_minute": 60},
    }


def terminal_settings(place: Place, role: BusRole, proxy: str) -> Settings:
    """A terminal's settings: it finds the hub by itself, and reaches it through its bus's router only."""
    return {
        "": {"state_directory": str(place.state)},
        "terminal": {"name": role.terminal, "route": role.route, "door": role.door},
        "store": {"key_file": str(place.key_file)},
        "reader": {"device": f"uart:{place.reader}"},
        "feedback": {"device": "console"},
        # Buses on one machine would hear each other, and a bus that is cut off is to be cut off.
        "peers": {"enabled": False},
        "uplink": {"proxy": proxy, "heartbeat_s": 1.0, "backoff_min_s": 0.2, "backoff_max_s": 1.5},
    }


def write_settings(place: Place, settings: Settings) -> None:
    """Makes the place and writes the settings as TOML; the table "" stands for the top of the file. Waits."""
    place.directory.mkdir(exist_ok=True)
    lines: list[str] = []
    for table, values in settings.items():
        lines += [f"[{table}]"] if table else []
        # JSON's strings, numbers, booleans and lists are TOML's as well.
        lines += [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
        lines.append("")
    place.settings.write_text("\n".join(lines), encoding="utf-8")


def free_port(random: Random) -> int:
    """A TCP port that nobody listens on now.

    It is none of those that the system gives to whoever asks for any: one of them may be gone before the
    process listens that it is meant for, or while that is started again.
    """
    for port in random.sample(_NEVER_GIVEN, PORT_TRIES):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise DemoError(
        f"{PORT_TRIES} ports of 127.0.0.1 were tried, and other programs have them all. Stop some of them."
    )
