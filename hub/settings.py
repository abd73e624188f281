"""The hub's settings: one TOML file, one table of (name, default, help, checker), one typed object.

A wrong file stops the start with a SettingsError that names the file, the key and what was expected.
Relative paths in the file are relative to the file.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from crdt.facts import MAX_ALLOWANCE_MINOR
from crdt.protocol import MAX_PAGE_ROWS
from hub.checkers import addresses, choice, database_url, host, optional_path, path, switch, text, whole
from hub.errors import SettingsError

T = TypeVar("T")

# A Unix socket's path holds 107 bytes on Linux, and control.sock lies in the state directory.
MAX_STATE_DIRECTORY_BYTES = 90
MAX_FILE_BYTES = 64 * 1024
MAX_SHOWN = 200  # characters of a wrong name or value in a sentence

CHECK = "check"
NAME = "name"
HELP = "help"


def setting(name: str, default: T, help_text: str, check: Callable[[object], T]) -> T:
    """One row of the table, as a field of `HubSettings`."""
    declared: Any = field(default=default, metadata={NAME: name, HELP: help_text, CHECK: check})
    value: T = declared
    return value


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Everything that can be set. The table of names, defaults and help is this class; README.md shows it."""

    state_directory: Path = setting(
        "state_directory",
        Path("/var/lib/farebox-hub"),
        "Where the ledger database and the control socket live.",
        path(MAX_STATE_DIRECTORY_BYTES),
    )
    key_file: Path = setting(
        "store.key_file",
        Path("/etc/farebox/hub.key"),
        "The database's key, 64 hex digits, readable by its owner only; never inside the state directory. "
        "The systemd credential `farebox-ledger-key` wins over it.",
        path(1024),
    )
    marks: str = setting(
        "store.marks_file",
        "",
        'The hub\'s high-water marks, by which it notices that its ledger was put back from a backup; "" is '
        "`marks` in the state directory. Never put it into a backup.",
        optional_path(1024),
    )
    store_url: str = setting(
        "store.url",
        "",
        "A database on a server for the ledger, such as postgresql://user:password@host/database (also "
        'mariadb:// and mysql://); "" is an encrypted file in the state directory.',
        database_url,
    )
    host: str = setting("server.host", "", 'Address to listen on; "" is every address.', host)
    port: int = setting("server.port", 8443, "HTTPS port; 0 takes any free one.", whole(0, 65535))
    connections: int = setting(
        "server.connections", 1024, "Most connections at a time; more are closed at once.", whole(1, 100_000)
    )
    connections_per_address: int = setting(
        "server.connections_per_address",
        128,
        "Most connections at a time from one address; raise it behind a TCP load balancer.",
        whole(1, 100_000),
    )
    handshake_timeout_s: int = setting(
        "server.handshake_timeout_s", 15, "Longest TLS handshake, in seconds.", whole(1, 3600)
    )
    header_timeout_s: int = setting(
        "server.header_timeout_s",
        15,
        "Longest time from the TLS handshake to the end of the first request's headers, in seconds.",
        whole(1, 3600),
    )
    body_timeout_s: int = setting(
        "server.body_timeout_s", 180, "Longest time a request's body may take, in seconds.", whole(1, 3600)
    )
    send_timeout_s: int = setting(
        "server.send_timeout_s",
        60,
        "Longest time a peer may leave an answer unread, in seconds.",
        whole(1, 3600),
    )
    idle_timeout_s: int = setting(
        "server.idle_timeout_s",
        75,
        "Longest time between two requests of one connection, in seconds.",
        whole(1, 3600),
    )
    exchanges: int = setting(
        "sync.exchanges",
        64,
        "Most sync exchanges at a time (each holds up to 4 MiB); more are told to come again.",
        whole(1, 10_000),
    )
    page_rows: int = setting(
        "sync.page_rows", MAX_PAGE_ROWS, "Most cards in one settlement page.", whole(1, MAX_PAGE_ROWS)
    )
    close_days_after_h: int = setting(
        "days.close_after_h",
        24,
        "How long after its end a day of service is closed by itself, in hours; 0: by hand only. What comes "
        "later restates it by adjustments. A day that was due more than seven days ago, because the hub was "
        "off or was put back, is left to a person.",
        whole(0, 24 * 365),
    )
    online_s: int = setting(
        "terminals.online_s",
        90,
        "A terminal heard of within this many seconds counts as online.",
        whole(1, 86_400),
    )
    max_debit_minor: int = setting(
        "enrolment.max_debit_minor",
        10_000,
        "Most that one entry of a newly paired terminal may take from a card, in minor units.",
        whole(0, 2**40),
    )
    max_credit_minor: int = setting(
        "enrolment.max_credit_minor",
        2_000,
        "Most that one entry of a newly paired terminal may put on a card (opening balance), in minor units.",
        whole(0, 2**40),
    )
    allowance_minor: int = setting(
        "enrolment.allowance",
        1_000_000,
        "Most that a newly paired terminal may ever put on cards, all its entries together, in minor units.",
        whole(0, MAX_ALLOWANCE_MINOR),
    )
    renewals_per_hour: int = setting(
        "enrolment.renewals_per_hour",
        4,
        "Most new identities in an hour for one terminal whose storage is found restored from an old copy.",
        whole(1, 100),
    )
    renewals_per_day: int = setting(
        "enrolment.renewals_per_day",
        8,
        "Most of those within a day. Pairing the terminal again begins anew.",
        whole(1, 1_000),
    )
    invite_expiry_s: int = setting(
        "pairing.expiry_s", 600, "How long a pairing code is good, in seconds.", whole(1, 86_400)
    )
    invite_tries: int = setting(
        "pairing.tries", 3, "Wrong tries after which a pairing code is burned.", whole(1, 10)
    )
    pairings_per_minute: int = setting(
        "pairing.attempts_per_minute", 20, "Pairing attempts a minute from one address.", whole(1, 10_000)
    )
    announce: bool = setting(
        "announce.enabled", True, "Whether the hub announces itself by zeroconf.", switch
    )
    announce_name: str = setting(
        "announce.name", "Farebox hub", "The name under which the hub announces itself.", text(40)
    )
    announce_interfaces: tuple[str, ...] = setting(
        "announce.interfaces",
        (),
        "Addresses of the interfaces to announce on; [] is all where the hub listens.",
        addresses,
    )
    announce_poll_s: int = setting(
        "announce.poll_s", 5, "How often the network interfaces are looked at, in seconds.", whole(1, 3600)
    )
    session_idle_s: int = setting(
        "operators.idle_s",
        3_600,
        "An operator's session ends after this many seconds without a request.",
        whole(1, 30 * 86_400),
    )
    session_longest_s: int = setting(
        "operators.longest_s",
        43_200,
        "An operator's session ends after this many seconds in any case.",
        whole(1, 30 * 86_400),
    )
    login_attempts: int = setting(
        "operators.login_attempts",
        5,
        "Wrong passwords from one address in five minutes before it has to wait.",
        whole(1, 1_000),
    )
    log_level: str = setting(
        "log.level",
        "info",
        "What is written to the log: debug, info, warning or error.",
        choice("debug", "info", "warning", "error"),
    )

    @property
    def control_socket(self) -> Path:
        """Where the running hub takes the commands of `farebox-hub`."""
        return self.state_directory / "control.sock"

    @property
    def database(self) -> Path:
        """The encrypted ledger, unless it lies on a server."""
        return self.state_directory / "ledger.db"

    @property
    def marks_file(self) -> Path:
        """The high-water marks beside it."""
        return Path(self.marks) if self.marks else self.state_directory / "marks"


def table() -> list[tuple[str, object, str]]:
    """(name, default, help) of every setting, in the order of the README."""
    return [(f.metadata[NAME], f.default, f.metadata[HELP]) for f in fields(HubSettings)]


def load(file: Path) -> HubSettings:
    """The settings in a TOML file; SettingsError when it is missing or wrong."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise SettingsError(f"The settings file {file} is larger than {MAX_FILE_BYTES} bytes.")
        document = tomllib.loads(raw.decode("utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"There is no settings file {file}. Run `farebox-hub init --settings {file}` first."
        ) from None
    except OSError as error:
        raise SettingsError(
            f"The settings file {file} cannot be read: {error.strerror}. Run this with sudo, or "
            "name another with --settings."
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"The settings file {file} cannot be read: it is no UTF-8 text.") from error
    except RecursionError as error:
        raise SettingsError(f"The settings file {file} is nested too deeply.") from error
    except ValueError as error:  # TOMLDecodeError is one; int() has its own for thousands of digits
        raise SettingsError(f"The settings file {file} is not valid TOML: {error}.") from error
    return parse(document, file)


def parse(document: Mapping[str, object], file: Path) -> HubSettings:
    """Settings from a parsed TOML document; `file` is named in errors and anchors relative paths."""
    known: dict[str, Field[Any]] = {f.metadata[NAME]: f for f in fields(HubSettings)}
    values: dict[str, Any] = {}
    for name, value in _flatten(document):
        if name not in known:
            raise SettingsError(f"{file}: there is no setting {name[:MAX_SHOWN]}. Known: {', '.join(known)}.")
        try:
            values[known[name].name] = known[name].metadata[CHECK](value)
        except ValueError as error:
            raise SettingsError(f"{file}: {name} is {_shown(value)}, but must be {error}.") from None
    settings = replace(HubSettings(), **values)
    state_directory = file.parent.absolute() / settings.state_directory
    if len(bytes(state_directory)) > MAX_STATE_DIRECTORY_BYTES:
        raise SettingsError(
            f"{file}: state_directory is {state_directory}, but must be a path of at most "
            f"{MAX_STATE_DIRECTORY_BYTES} bytes, for the control socket in it."
        )
    key_file = file.parent.absolute() / settings.key_file
    marks = str(file.parent.absolute() / settings.marks) if settings.marks else ""
    return replace(settings, state_directory=state_directory, key_file=key_file, marks=marks)


def _shown(value: object) -> str:
    try:
        written = repr(value)
    except ValueError:  # a number of thousands of digits, which TOML may write in hex
        return "a huge number"
    return written if len(written) <= MAX_SHOWN else f"{written[:MAX_SHOWN]}..."


def _flatten(document: Mapping[str, object]) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for section, content in document.items():
        if isinstance(content, dict):
            found += [(f"{section}.{key}", value) for key, value in content.items()]
        else:
            found.append((section, content))
    return found
