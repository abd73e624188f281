"""The terminal as a program: whatever keeps it from starting is one sentence and an exit code."""

import json
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import tech
from edge.local import UnixConnection, ask
from tests.edge.authority import Fleet
from tests.edge.program import Bus, Program

UID = "04A1B2C3D4E5F6"


@pytest.fixture
def bus(tmp_path: Path) -> Bus:
    bus = Bus(tmp_path)
    bus.configure()
    return bus


@pytest.fixture
def reader(bus: Bus) -> Iterator[Program]:
    with bus.reader() as reader:
        yield reader


def last_words(bus: Bus, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Start a terminal that will not run: its exit code and what it wrote to standard error."""
    with bus.terminal(environment) as terminal:
        code = terminal.ended()
        return code, terminal.errors


def sentence(words: str) -> str:
    """The one line that a person reads."""
    assert "Traceback" not in words
    (line,) = [line for line in words.splitlines() if line.startswith("farebox-edge: ")]
    return line.removeprefix("farebox-edge: ")


def test_a_wrong_setting_stops_the_start_naming_file_key_and_expectation(bus: Bus) -> None:
    bus.configure('[uplink]\nheartbeat_s = "often"')
    code, words = last_words(bus)
    assert code == 78
    assert sentence(words) == (
        f'{bus.settings_file}: uplink.heartbeat_s must be a number of seconds from 1 to 86400, not "often".'
    )


def test_a_wrong_database_key_is_a_sentence_and_no_traceback(bus: Bus, fleet: Fleet) -> None:
    bus.enrol(fleet)
    bus.settings.store_key_file.write_text("00" * 32)
    code, words = last_words(bus)
    assert code == 78
    assert sentence(words).startswith("The key does not open the ledger")


def test_a_missing_key_for_a_ledger_that_is_there_is_a_sentence(bus: Bus, fleet: Fleet) -> None:
    bus.enrol(fleet)
    bus.settings.store_key_file.unlink()
    code, words = last_words(bus)
    assert code == 78
    assert "Put the key file back" in sentence(words)


def test_a_second_process_on_the_same_ledger_is_refused_and_the_first_goes_on(
    bus: Bus, fleet: Fleet, reader: Program
) -> None:
    bus.enrol(fleet)
    with bus.terminal() as first:
        first.line_with("ready")
        code, words = last_words(bus)
        assert code == 75
        assert "is in use by another process" in sentence(words)
        reader.say(f"present ntag215:{UID}")
        first.line_with("accepted")
        assert ask(bus.settings.control_socket, "GET", "/status")["head_seq"] == 2
        assert first.stop() == 0


def test_lights_that_are_not_there_are_a_sentence(bus: Bus) -> None:
    """No light means broken; a terminal without lights does not start."""
    bus.configure(feedback="gpio")
    code, words = last_words(bus)
    assert code == 69
    assert "feedback.device: " in sentence(words)


def test_a_state_directory_that_cannot_be_made_is_a_sentence(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    code, words = last_words(bus)
    assert code == 69
    assert "state directory" in sentence(words)


def test_sigterm_ends_it_cleanly(bus: Bus, fleet: Fleet, reader: Program) -> None:
    bus.enrol(fleet)
    with bus.terminal() as terminal:
        terminal.line_with("ready")
        assert bus.settings.control_socket.stat().st_mode & 0o777 == 0o600
        assert terminal.stop() == 0
        assert "Traceback" not in terminal.errors
    assert not bus.settings.control_socket.exists()


def test_who_taps_while_it_starts_or_is_stopped_is_shown_that_nothing_answers(
    bus: Bus, fleet: Fleet, reader: Program
) -> None:
    """No light of before is taken for one that answers; a card that is still there then is decided."""
    bus.enrol(fleet)
    with bus.terminal() as terminal:
        reader.say(f"present ntag215:{UID}")
        assert terminal.line() == "[       ] out-of-service: Out of service: starting"
        assert terminal.line() == "[ amber ] ready"
        terminal.line_with("accepted")
        assert terminal.stop() == 0
        terminal.line_with("out-of-service: Out of service: stopped")


def test_it_tells_systemd_when_it_is_ready_that_it_lives_and_when_it_stops(
    bus: Bus, fleet: Fleet, reader: Program, tmp_path: Path
) -> None:
    bus.enrol(fleet)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with bus.terminal(environment) as terminal:
            assert systemd.recv(200).startswith(b"READY=1\n")
            assert systemd.recv(200) == b"WATCHDOG=1"
            assert terminal.stop() == 0
        heard = b""
        while heard != b"STOPPING=1":
            heard = systemd.recv(200)


def test_a_failing_disk_ends_the_program_and_turns_nothing_green(
    bus: Bus, fleet: Fleet, reader: Program
) -> None:
    """Invariant 1 in the real program: the kernel refuses every further byte of the log."""
    bus.enrol(fleet)
    with bus.terminal() as terminal:
        terminal.line_with("ready")
        log = Path(f"{bus.settings.database}-wal")
        limit = log.stat().st_size
        resource.prlimit(terminal.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        reader.say(f"present ntag215:{UID}")
        terminal.line_with("out-of-service: Out of service: the ledger cannot be written")
        assert terminal.ended() == 69
        assert "accepted" not in " ".join(terminal.kill())
        assert "the terminal starts again" in sentence(terminal.errors.split("Traceback")[-1])
    reader.say("remove")  # or the next start takes it
    reader.line_with("removed")
    with bus.terminal() as again:
        again.line_with("ready")
        assert ask(bus.settings.control_socket, "GET", "/status")["head_seq"] == 0


def test_an_unpaired_terminal_says_so_and_tells_the_technician(
    bus: Bus, reader: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    with bus.terminal() as terminal:
        terminal.line_with("out-of-service: Out of service: not paired yet")
        assert farebox_tech(bus, "status") == 0
        said = capsys.readouterr().out
        assert "paired:     no: `farebox-hub invite` prints a code" in said
        assert "last sync:  none since it was started" in said
        assert "uplink:     offline: not paired yet\n" in said
        assert farebox_tech(bus, "card", UID) == 1
        assert "farebox-tech pair CODE" in capsys.readouterr().err
        assert farebox_tech(bus, "pair", "nonsense") == 1
        assert "looks like 4-7K2M9QX" in capsys.readouterr().err
        assert farebox_tech(bus, "pair", "4-7K2M9QX", "--hub", "ftp://x") == 1
        assert "an address such as" in capsys.readouterr().err
        assert farebox_tech(bus, "pair", "4-7K2M9QX", "--hub", "127.0.0.1:1") == 1
        assert "No hub answers at 127.0.0.1:1" in capsys.readouterr().err


def test_the_technician_sees_status_and_card_and_can_ask_for_a_sync(
    bus: Bus, fleet: Fleet, reader: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    bus.configure('[hub]\naddress = "127.0.0.1:1"')
    bus.enrol(fleet)
    with bus.terminal() as terminal:
        terminal.line_with("ready")
        reader.say(f"present ntag215:{UID}")
        terminal.line_with("accepted: 2.50 EUR paid, 7.50 EUR left, card registered")
        assert farebox_tech(bus, "card", "04:a1:b2:c3:d4:e5:f6") == 0
        said = capsys.readouterr().out
        assert said.startswith(f"card {UID}: known, balance 7.50 EUR\n")
        assert "fare          -2.50 EUR  number 2" in said
        assert farebox_tech(bus, "sync") == 1, "a sync that failed is not done"
        assert "offline: No hub answers at 127.0.0.1:1" in capsys.readouterr().out
        assert farebox_tech(bus, "--json", "status") == 0
        status = json.loads(capsys.readouterr().out)
    assert (status["name"], status["route"], status["paired"]) == ("Bus 12 front", "12", True)
    assert (status["held"], status["held_minor"], status["head_seq"], status["balanced"]) == (2, 750, 2, True)
    assert (status["online"], status["reader"]) == (False, "ready")
    assert len(status["digest"]) == 64


def test_what_is_no_card_number_is_answered_with_an_example(
    bus: Bus, reader: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    with bus.terminal() as terminal:
        terminal.line_with("not paired yet")
        for uid in ("zz", "0401", "04" * 17):
            assert farebox_tech(bus, "card", uid) == 1
            assert "such as 04A1B2C3D4E5F6" in capsys.readouterr().err


def test_no_running_terminal_is_a_sentence_that_says_how_to_start_one(
    bus: Bus, capsys: pytest.CaptureFixture[str]
) -> None:
    assert farebox_tech(bus, "status") == 1
    assert "systemctl start farebox-edge" in capsys.readouterr().err
    assert tech.main(["--settings", "/nonexistent.toml", "status"]) == 1
    assert "cannot be read" in capsys.readouterr().err


GARBAGE = [
    ("POST", "/pair", b"{"),
    ("POST", "/pair", b"[]"),
    ("POST", "/pair", b"{}"),
    ("POST", "/pair", b'{"code": 7}'),
    ("POST", "/pair", b'{"code": "x", "hub": 7}'),
    ("POST", "/pair", b"\xff" * 100),
    ("POST", "/pair", b'{"code": "' + b"x" * 10_000 + b'"}'),
    ("GET", "/nothing", b""),
    ("DELETE", "/status", b""),
]


def test_garbage_on_the_control_socket_is_answered_with_a_sentence(bus: Bus, reader: Program) -> None:
    """Invariant 8, for the one door that is open to this machine only."""
    with bus.terminal() as terminal:
        terminal.line_with("not paired yet")
        for method, path, body in GARBAGE:
            status, said = requested(bus, method, path, body)
            assert 400 <= status < 500
            assert said["error"]
            assert said["message"]
        assert terminal.stop() == 0
        assert "Traceback" not in terminal.errors


def requested(bus: Bus, method: str, path: str, body: bytes) -> tuple[int, dict[str, object]]:
    """One raw request to the control socket: status and answer."""
    connection = UnixConnection(bus.settings.control_socket, 30)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def farebox_tech(bus: Bus, *arguments: str) -> int:
    return tech.main(["--settings", os.fspath(bus.settings_file), *arguments])
