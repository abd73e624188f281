"""The terminal's settings: one TOML file, and one table that says everything about each setting.

`SETTINGS` is the only place where a setting is declared; edge/README.md lists the same table, and a test
compares the two. A file that cannot be used as it stands stops the start with one sentence.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.addresses import HubAddress
from edge.checkers import (
    Checker,
    feedback,
    flag,
    hub_address,
    one_of,
    path,
    port,
    proxy,
    reader,
    seconds,
    state_directory,
    text,
)
from edge.errors import SettingsError

MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked settings; a field for each row of `SETTINGS`, with "_" for the dot."""

    state_directory: Path
    terminal_name: str
    terminal_route: str
    terminal_door: str
    terminal_vehicle: str
    store_key_file: Path
    reader_device: str
    feedback_device: str
    hub_address: HubAddress | None
    discovery_enabled: bool
    peers_enabled: bool
    peers_port: int
    peers_seal_after_s: float
    peers_visit_s: float
    uplink_proxy: str
    uplink_heartbeat_s: float
    uplink_backoff_min_s: float
    uplink_backoff_max_s: float
    uplink_timeout_s: float
    uplink_read_timeout_s: float
    log_level: str

    @property
    def control_socket(self) -> Path:
        """Where the running terminal takes the technician's commands."""
        return self.state_directory / "control.sock"

    @property
    def database(self) -> Path:
        """The encrypted ledger."""
        return self.state_directory / "ledger.db"

    @property
    def marks(self) -> Path:
        """How far the ledger had come; beside it, and in no backup of it."""
        return self.state_directory / "marks"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table; `default` None means that the file has to give it."""

    name: str
    default: str | float | bool | None
    help: str
    check: Checker

    @property
    def field(self) -> str:
        """The field of `Settings` that takes the value."""
        return self.name.replace(".", "_")


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "state_directory",
        "/var/lib/farebox-edge",
        "Where the ledger and the control socket lie. Relative paths count from the settings file.",
        state_directory,
    ),
    Setting("terminal.name", None, 'What people call this terminal: "Bus 12 front".', text(1)),
    Setting(
        "terminal.route",
        "",
        "The route it runs on; decides the fare where the fleet has one for it.",
        text(0),
    ),
    Setting("terminal.door", "", "The door it stands at, for reports.", text(0)),
    Setting(
        "terminal.vehicle",
        "",
        "The vehicle it is on, the same text at each of its doors: they tell each other every tap at once.",
        text(0),
    ),
    Setting(
        "store.key_file",
        "/etc/farebox/edge.key",
        "The ledger's key, made at the first start. A systemd credential farebox-ledger-key wins.",
        path,
    ),
    Setting("reader.device", "uart:/dev/serial0", 'The card reader: "uart:PATH", "i2c" or "spi".', reader),
    Setting(
        "feedback.device",
        "gpio",
        'Light and sound: "gpio", or "console" for text.',
        feedback,
    ),
    Setting(
        "hub.address",
        "",
        'A fixed address of the hub, "host:port"; tried beside what the LAN says.',
        hub_address,
    ),
    Setting("discovery.enabled", True, "Look for the hub on the LAN by zeroconf.", flag),
    Setting(
        "peers.enabled",
        True,
        "Talk to other terminals of the fleet on the LAN, also without a hub.",
        flag,
    ),
    Setting("peers.port", 0, "The TCP port at which they are answered; 0 is any that is free.", port),
    Setting(
        "peers.seal_after_s",
        60.0,
        "How long taps may wait to be sealed and copied to another door of the vehicle.",
        seconds(0.1, 86_400),
    ),
    Setting(
        "peers.visit_s",
        60.0,
        "About how long between two visits to terminals of other vehicles.",
        seconds(0.1, 86_400),
    ),
    Setting("uplink.proxy", "", 'An HTTP proxy on the way to the hub, "http://host:port".', proxy),
    Setting(
        "uplink.heartbeat_s",
        30.0,
        "Longest silence towards the hub while nobody taps.",
        seconds(1, 86_400),
    ),
    Setting("uplink.backoff_min_s", 1.0, "First wait after a failed exchange.", seconds(0.05, 3_600)),
    Setting(
        "uplink.backoff_max_s",
        60.0,
        "Longest wait after many failed exchanges, or because a busy hub asks for it.",
        seconds(0.05, 86_400),
    ),
    Setting("uplink.timeout_s", 60.0, "Longest time one exchange may take in all.", seconds(1, 3_600)),
    Setting(
        "uplink.read_timeout_s",
        15.0,
        "Longest silence of the hub within an exchange.",
        seconds(0.1, 600),
    ),
    Setting("log.level", "info", "How much is logged.", one_of("debug", "info", "warning", "error")),
)


def load_settings(path: Path) -> Settings:
    """Read and check `path`. Raises SettingsError: a sentence with file, setting, expectation."""
    return check_settings(path, _read(path))


def check_settings(path: Path, document: Mapping[str, object]) -> Settings:
    """Check the parsed file; `path` is for the sentences and for relative paths. Raises SettingsError."""
    given = _flatten(path, document)
    values: dict[str, Any] = {}
    for row in SETTINGS:
        value = given.pop(row.name, row.default)
        if value is None:
            raise SettingsError(f"{path}: {row.name} is missing. {row.help}")
        try:
            values[row.field] = row.check(value, path.absolute().parent)
        except ValueError as expected:
            raise SettingsError(f"{path}: {row.name} must be {expected}, not {_show(value)}.") from None
    if given:
        raise SettingsError(_unknown(path, min(given)))
    settings = Settings(**values)
    _check_together(path, settings)
    return settings


def _read(path: Path) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"{path}: the settings file cannot be read ({error.strerror}). Use sudo, or name the"
            " terminal's own with --settings."
        ) from error
    if len(raw) > MAX_FILE_BYTES:
        raise SettingsError(f"{path}: the settings file is larger than {MAX_FILE_BYTES} bytes.")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: the settings file is no UTF-8 text.") from error
    except (ValueError, RecursionError) as error:  # a plain ValueError is a number of thousands of digits
        raise SettingsError(f"{path}: the settings file is not TOML ({error}).") from error


def _flatten(path: Path, document: Mapping[str, object]) -> dict[str, object]:
    tables = {row.name.partition(".")[0] for row in SETTINGS if "." in row.name}
    flat: dict[str, object] = {}
    for name, value in document.items():
        if name not in tables:
            flat[name] = value
        elif isinstance(value, dict):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            raise SettingsError(f"{path}: {name} must be a table, [{name}], not {_show(value)}.")
    return flat


def _unknown(path: Path, name: str) -> str:
    close = difflib.get_close_matches(name, [row.name for row in SETTINGS], n=1)
    hint = f"did you mean {close[0]}?" if close else "edge/README.md lists all settings."
    return f"{path}: there is no setting {_show(name, quote='')}; {hint}"


def _show(value: object, quote: str = '"') -> str:
    try:
        text = f"{quote}{value}{quote}" if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # a huge hexadecimal number, or tables nested a thousand deep
        return f"such a large {type(value).__name__}"
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return printable if len(printable) <= 80 else f"{printable[:77]}..."


def _check_together(path: Path, settings: Settings) -> None:
    if settings.uplink_backoff_max_s < settings.uplink_backoff_min_s:
        least = f"{settings.uplink_backoff_min_s:g}"
        raise SettingsError(f"{path}: uplink.backoff_max_s must be at least uplink.backoff_min_s ({least}).")
    if settings.store_key_file.is_relative_to(settings.state_directory):
        raise SettingsError(
            f"{path}: store.key_file must lie outside state_directory ({settings.state_directory}),"
            " so that a copy of the state never carries its own key."
        )
