"""The terminal as a program: whatever keeps it from starting is one sentence and an exit code."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import tech
from edge.local import UnixConnection, ask
from tests.edge.authority import Fleet
from tests.edge.program import Bus, Program
from tests.interrupting import interrupted

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


def test_the_settings_may_stand_after_the_command_too(
    bus: Bus, reader: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with farebox-hub: whoever types it at the end is understood."""
    with bus.terminal() as terminal:
        terminal.line_with("not paired yet")
        assert tech.main(["status", "--json", "--settings", str(bus.settings_file)]) == 0
        assert json.loads(capsys.readouterr().out)["paired"] is False
        assert tech.main(["--json", "status", "--socket", str(bus.settings.control_socket)]) == 0
        assert json.loads(capsys.readouterr().out)["paired"] is False


@contextlib.contextmanager
def answering(place: Path) -> Iterator[socket.socket]:
    """A socket at which somebody may listen who is no terminal."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        yield listener


def farebox_tech_process(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "edge.tech", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_says_what_it_leaves(tmp_path: Path) -> None:
    """The terminal goes on with what it was asked for, and nobody has heard what became of it."""
    with answering(tmp_path / "control.sock") as listener:
        command = farebox_tech_process("--socket", str(tmp_path / "control.sock"), "sync")
        errors = interrupted(command, listener)
    assert command.returncode == 130
    assert errors.startswith("farebox-tech: Stopped. The terminal goes on")
    assert len(errors.splitlines()) == 1


def test_ctrl_c_before_it_runs_is_a_sentence(tmp_path: Path) -> None:
    """Held at its settings, which come through a pipe."""
    os.mkfifo(tmp_path / "edge.toml")
    command = subprocess.Popen(
        [sys.executable, "-m", "edge", "--settings", str(tmp_path / "edge.toml")],
        stderr=subprocess.PIPE,
        text=True,
    )
    with (tmp_path / "edge.toml").open("wb"):  # waits for the one who reads
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=60)
    assert (command.returncode, errors) == (130, "farebox-edge: Stopped before it took taps.\n")


def answer(listener: socket.socket, body: bytes) -> None:
    """One request, whatever it is; heard to its end, which is JSON."""
    connection, _ = listener.accept()
    with connection:
        heard = b""
        while not heard.endswith(b"}"):
            heard += connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def test_what_is_no_terminal_is_told_apart_from_one(tmp_path: Path) -> None:
    """Such as a hub's control socket, which knows a status too."""
    with answering(tmp_path / "control.sock") as listener:
        command = farebox_tech_process("--socket", str(tmp_path / "control.sock"), "status")
        answer(listener, b'{"fleet": "00"}')
        _, errors = command.communicate(timeout=60)
    assert command.returncode == 1
    assert errors.startswith("farebox-tech: What answers at ")
    assert len(errors.splitlines()) == 1


def test_what_the_screen_cannot_show_is_escaped(tmp_path: Path) -> None:
    """A note in any language is no reason to fail, whatever the locale is."""
    fields = {name: {"notes": "Türe klemmt"} for name in ("document", "in_use", "after_start")}
    with answering(tmp_path / "control.sock") as listener:
        arguments = ("--socket", str(tmp_path / "control.sock"), "show")
        command = farebox_tech_process(*arguments, PYTHONIOENCODING="ascii")
        answer(listener, json.dumps({**fields, "paired": True}).encode())
        output, errors = command.communicate(timeout=60)
    assert (command.returncode, output, errors) == (0, "notes:   T\\xfcre klemmt\n", "")


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
