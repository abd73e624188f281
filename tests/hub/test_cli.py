"""`farebox-hub` as a person meets it: real processes; every mistake is one sentence, never a traceback."""

import asyncio
import errno
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from crdt.block import parse
from crdt.courier import CourierWriter
from crdt.facts import FleetId, ReplicaId
from crdt.store.database import Database
from hub import founding
from hub.authority import Authority, new_secrets
from hub.cli import main
from hub.control_client import download
from hub.errors import SetupError
from hub.keyfile import create_key, read_key
from hub.places import Places, default_places
from hub.settings import load
from tests.fullstick import capped_files
from tests.hub.processes import PASSWORD, HubProcess, Shell, hub_process
from tests.hub.terminal import Terminal
from tests.interrupting import interrupted

UID = "04A1B2C3D4E5F6"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with hub_process(tmp_path) as hub:
        yield hub


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on standard error of a command that failed as it should."""
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("farebox-hub: ")
    return line


def test_init_founds_a_fleet_and_says_what_to_do_next(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path)
    done = hub.init()
    assert done.returncode == 0
    assert re.search(r"The fleet [0-9a-f]{32} is founded", done.stdout)
    assert f"farebox-hub run --settings {hub.settings}" in done.stdout
    assert "keep a copy" in done.stdout
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state", tmp_path / "hub.key")}
    assert modes == {"state": 0o700, "hub.key": 0o600}
    assert PASSWORD not in hub.settings.read_text()
    root = x509.load_pem_x509_certificate((tmp_path / "fleet-root.pem").read_bytes())
    assert root.subject.rfc4514_string().startswith("CN=Farebox fleet ")


def test_output_that_nobody_reads_to_its_end_is_no_error(tmp_path: Path) -> None:
    """`farebox-hub … | head`: quiet, with the status that Python's own documentation gives."""
    read, write = os.pipe()
    os.close(read)
    places = ("--state-directory", str(tmp_path / "state"), "--key-file", str(tmp_path / "hub.key"))
    with os.fdopen(write) as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "hub", "init", *places, "--settings", str(tmp_path / "hub.toml")],
            env={**os.environ, "FAREBOX_OPERATOR_PASSWORD": PASSWORD},
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_output_that_finds_no_room_is_a_sentence(tmp_path: Path) -> None:
    """`farebox-hub … > FILE` on a full disk: it was done all the same, and whoever asked has to know."""
    hub = HubProcess(tmp_path)
    places = ("--state-directory", str(tmp_path / "state"), "--key-file", str(tmp_path / "hub.key"))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hub", "init", *places, "--settings", str(hub.settings)],
            env={**os.environ, "FAREBOX_OPERATOR_PASSWORD": PASSWORD},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert "No space left on device. What the hub was asked for is done." in sentence(done)


def test_what_the_screen_cannot_show_is_escaped(tmp_path: Path) -> None:
    """A name of a route or a bus is no reason to fail, whatever the locale is."""
    hub = HubProcess(tmp_path / "dépôt")
    hub.directory.mkdir()
    places = ("--state-directory", str(tmp_path / "state"), "--key-file", str(tmp_path / "hub.key"))
    done = hub.command("init", *places, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "d\\xe9p\\xf4t" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("cards", "show", "\udcff"),
        ("terminals", "show", "\udcff"),
        ("report", "\udcff"),
        ("topup", UID, "\udcff"),
        ("ledger", "adopt", "\udcff"),
        ("terminals", "set", "Bus 1", "notes=\udcff"),
    ],
)
def test_what_is_no_text_is_asked_of_nobody(
    hub: HubProcess, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """Bytes typed in another encoding than the shell's."""
    assert "no UTF-8 text, and nothing was asked" in Shell(hub, capsys).sentence(*arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("topup", UID, "5"), "Look whether this was done before you ask again."),
        (("cards",), "Stopped."),
        (("ledger", "import", "STICK"), "Import it again: nothing counts twice."),
        (("ledger", "export", "FILE"), "was not complete and is removed; the ledger is unchanged."),
    ],
)
def test_ctrl_c_says_what_it_leaves(hub: HubProcess, arguments: tuple[str, ...], says: str) -> None:
    """Before the answer nobody knows whether money was booked; a file is whole or not there."""
    place = load(hub.settings).control_socket
    (hub.directory / "STICK").write_bytes(b"stick")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        command = subprocess.Popen(
            [sys.executable, "-m", "hub", *arguments, "--settings", str(hub.settings)],
            cwd=hub.directory,
            stderr=subprocess.PIPE,
            text=True,
        )
        errors = interrupted(command, listener)
    assert command.returncode == 130
    assert errors.startswith("farebox-hub: Stopped")
    assert says in errors
    assert not (hub.directory / "FILE").exists()


def test_a_ledger_of_another_user_is_a_sentence(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", refused)
    expected = r"cannot be reached: Permission denied\. Run the hub as the user"
    with pytest.raises(SetupError, match=expected), founding.opened(load(hub.settings), {}):
        pass


def test_init_again_changes_nothing(hub: HubProcess) -> None:
    before = {path: path.read_bytes() for path in hub.directory.glob("hub.*")}
    assert "nothing was changed" in sentence(hub.command("init", FAREBOX_OPERATOR_PASSWORD="another one"))
    assert {path: path.read_bytes() for path in hub.directory.glob("hub.*")} == before


def test_an_interrupted_init_is_finished_by_the_next(tmp_path: Path) -> None:
    """The password is its last step; keys that are there stay."""
    places = Places(tmp_path / "hub.toml", tmp_path / "state", tmp_path / "hub.key")
    settings = founding.write_settings(places, None)
    settings.state_directory.mkdir()
    create_key(settings.key_file, settings.state_directory)
    secrets = new_secrets()
    with Database.open(settings.database, read_key(settings.key_file, {})) as database:
        founding.store_secrets(database, secrets)
    with pytest.raises(SetupError, match="no fleet"), founding.opened(settings, {}):
        pass
    founding.found(settings, PASSWORD, {})
    with founding.opened(settings, {}) as (_, kept):
        assert kept == secrets


def test_a_root_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    """It is the last step: the fleet is founded, and whoever runs `init` is told so."""
    (tmp_path / founding.ROOT_FILE).mkdir()
    places = Places(tmp_path / "hub.toml", tmp_path / "state", tmp_path / "hub.key")
    with pytest.raises(SetupError, match=r"is founded .*fleet-root\.pem, for browsers, cannot be written"):
        founding.write_root(places, Authority(new_secrets()))


def test_the_password_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from a file\nsecond line\n")
    hub = HubProcess(tmp_path)
    places = ("--state-directory", str(tmp_path / "state"), "--key-file", str(tmp_path / "hub.key"))
    done = hub.command("init", *places, "--password-file", str(tmp_path / "password"))
    assert done.returncode == 0
    with founding.opened(load(hub.settings), {}):
        pass


@pytest.mark.parametrize(
    ("arguments", "password", "expected"),
    [
        ((), "", "There is no terminal to ask for a password"),
        ((), "short", "must have 8 to 256 characters"),
        (("--password-file", "/no/such/file"), "", "cannot be read"),
        (("--key-file", "STATE/hub.key"), PASSWORD, "inside the state directory"),
        (("--state-directory", "/proc/nowhere"), PASSWORD, "cannot be made"),
    ],
)
def test_an_init_that_cannot_be_says_why(
    tmp_path: Path, arguments: tuple[str, ...], password: str, expected: str
) -> None:
    hub = HubProcess(tmp_path)
    places = ["--state-directory", str(tmp_path / "state"), "--key-file", str(tmp_path / "hub.key")]
    given = [argument.replace("STATE", str(tmp_path / "state")) for argument in arguments]
    done = hub.command("init", *places, *given, FAREBOX_OPERATOR_PASSWORD=password)
    assert expected in sentence(done)


def test_run_without_init_says_what_to_run(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path)
    assert f"farebox-hub init --settings {hub.settings}" in sentence(hub.command("run"))
    hub.settings.write_text('state_directory = "state"\n')
    assert "Run `farebox-hub init`" in sentence(hub.command("run"))


def test_a_wrong_setting_stops_the_start(hub: HubProcess) -> None:
    with hub.settings.open("a") as file:
        file.write("poll_s = 0\n")
    line = sentence(hub.command("run"))
    assert f"{hub.settings}: announce.poll_s is 0, but must be a whole number from 1 to 3600." in line


def test_a_wrong_key_is_a_sentence(hub: HubProcess) -> None:
    (hub.directory / "hub.key").write_text("00" * 32)
    assert "The key does not open the ledger" in sentence(hub.command("run"))


def test_a_missing_key_is_a_sentence_and_init_makes_no_new_one(hub: HubProcess) -> None:
    (hub.directory / "hub.key").unlink()
    for command in ("run", "init"):
        assert "is missing" in sentence(hub.command(command))
    assert not (hub.directory / "hub.key").exists()


def test_a_second_process_on_the_ledger_is_refused(hub: HubProcess) -> None:
    hub.start()
    for command in ("run", "init"):
        assert "in use by another process" in sentence(hub.command(command))
    assert hub.stop(signal.SIGTERM) == 0


def test_a_port_in_use_is_a_sentence(hub: HubProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        hub.settings.write_text(hub.settings.read_text().replace("port = 0", f"port = {port}"))
        assert f"Port {port} is in use by another program" in sentence(hub.command("run"))


def test_an_address_that_is_not_ours_is_a_sentence(hub: HubProcess) -> None:
    hub.settings.write_text(hub.settings.read_text().replace("127.0.0.1", "198.51.100.1"))
    assert "Check server.host" in sentence(hub.command("run"))


def test_commands_without_a_running_hub_say_so(hub: HubProcess, capsys: pytest.CaptureFixture[str]) -> None:
    run = Shell(hub, capsys)
    for arguments in (("invite",), ("cards",), ("topup", UID, "5"), ("terminals",), ("fleet",)):
        assert "No running hub answers" in run(*arguments, status=1)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_hub_that_is_told_to_stop_stops_cleanly(hub: HubProcess, signal_number: signal.Signals) -> None:
    hub.start()
    assert hub.stop(signal_number) == 0
    assert "Traceback" not in (hub.directory / "log.txt").read_text()


def test_a_day_at_the_depot(
    hub: HubProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invite, pair, taps, top-up, block, fares, revoke, password: each command against a running hub."""
    run = Shell(hub, capsys)
    hub.start()
    code = run("invite").splitlines()[0]
    assert re.fullmatch(r"1-[0-9A-Z]{7}", code)
    assert "Good for one terminal and 10 minutes" in run("invite")
    asyncio.run(_pair_and_tap(hub.url, code))
    assert re.search(r"^Bus 1 +- +all taps in +\S+ \S+ +\? +2 +[0-9a-f]{32}$", run("terminals"), re.M)
    assert "10.00 EUR on 04A1B2C3D4E5F6 booked. Balance 5.70 EUR." in run(
        "topup", UID, "10", "--request", "till-0001"
    )
    assert "nothing was added" in run("topup", UID, "10", "--request", "till-0001")
    assert "is blocked" in run("cards", "block", UID)
    assert re.search(rf"^{UID} +5.70 EUR +blocked$", run("cards"), re.M)
    assert run("cards", "show", UID).startswith(f"{UID}  5.70 EUR  BLOCKED\n")
    assert "is unblocked" in run("cards", "unblock", UID)
    changed = run("fleet", "set", "flat_fare=3.10", "route_fares=7=1.80,Airport=4.20")
    assert "flat_fare = 3.10\nroute_fares = 7=1.80, Airport=4.20\n" in changed
    assert run("fleet") == changed
    beyond = run("terminals", "revoke", "Bus 1", "--cut-off", "99999")
    assert "Later ones up to 99999 count as they" in beyond
    revoked = run("terminals", "revoke", "Bus 1")
    assert "Bus 1 is revoked" in revoked
    assert "count as they" not in revoked
    assert re.search(r"^Bus 1 +- +revoked", run("terminals"), re.M)
    monkeypatch.setenv("FAREBOX_OPERATOR_PASSWORD", "another one")
    assert "changed" in run("password")
    assert "is not an amount" in run("topup", UID, "ten", status=1)
    assert "Say which card" in run("cards", "show", status=1)
    assert "Say which terminal" in run("terminals", "revoke", status=1)
    assert "is not a change" in run("fleet", "set", "flat_fare", status=1)
    assert "Say what to set" in run("fleet", "set", status=1)
    assert hub.stop(signal.SIGTERM) == 0


async def _pair_and_tap(url: str, code: str) -> None:
    terminal = await Terminal.pair(url, code, "Bus 1")
    await terminal.push(terminal.taps(-250, -180))


def test_a_fork_is_looked_at_and_decided_on_the_command_line(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue: a fork is told with what it means, shown entry by entry, and resolved; without a page."""
    run = Shell(hub, capsys)
    hub.start()
    try:
        block = asyncio.run(_fork(hub.url, run("invite").splitlines()[0]))
        told = run("ledger", "forks")
        assert re.search(rf"^Bus 1 +2–3 +-3.60 EUR +fork +open +{block}$", told, re.M)
        assert "farebox-hub ledger adopt BLOCK" in told
        said = run("ledger", "show", block)
        assert re.search(rf"^2 +\S+ \S+ +Fare +-1.80 EUR +{UID}$", said, re.M)
        assert len(said.splitlines()) == 3
        assert "no such block" in run.sentence("ledger", "show", "nix")
        assert "Say which block" in run.sentence("ledger", "show")
        run("ledger", "adopt", block)
        assert re.search(rf"^{UID} +-8.60 EUR +overdrawn$", run("cards"), re.M)
        assert "BLOCKED" not in run("cards", "show", UID)
        assert "until a top-up has paid that" in run("cards", "unblock", UID)
        assert re.search(r"booked by the hub +[0-9a-f]{64}$", run("ledger", "forks"), re.M)
        assert "adopt BLOCK" not in run("ledger", "forks")
        assert re.search(r" Fare +-2.50 EUR +Bus 1$", run("cards", "show", UID), re.M)
    finally:
        hub.stop(signal.SIGTERM)


async def _fork(url: str, code: str) -> str:
    """The hash of the block that does not count, of a terminal that signed two."""
    terminal = await Terminal.pair(url, code, "Bus 1")
    await terminal.push(terminal.taps(-250), terminal.taps(-250))
    terminal.head = parse(terminal.chain[0]).head
    raw = terminal.taps(-180, -180)
    await terminal.push(raw)
    return parse(raw).hash.hex()


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for command in ("init", "run", "invite", "demo", "cards", "topup", "terminals", "fleet", "password"):
        assert re.search(rf"^ +{command}\b", text, re.M)


def test_places_are_the_systems_for_root_and_the_users_own_otherwise() -> None:
    assert default_places(0, Path("/root")).settings == Path("/etc/farebox/hub.toml")
    own = default_places(1000, Path("/home/ada"))
    assert all(path.is_relative_to("/home/ada") for path in (own.settings, own.state_directory, own.key_file))
    assert not own.key_file.is_relative_to(own.state_directory)


def test_the_key_of_a_systemd_credential_opens_the_ledger(hub: HubProcess, tmp_path: Path) -> None:
    key = hub.directory / "hub.key"
    (tmp_path / "credentials").mkdir()
    key.rename(tmp_path / "credentials" / "farebox-ledger-key")
    environment = {**os.environ, "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    with founding.opened(load(hub.settings), environment):
        pass


def test_backup_and_courier_files_are_made_once_and_taken_again(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Shell(hub, capsys)
    hub.start()
    try:
        run("topup", UID, "12.50")
        for command in (("backup",), ("ledger", "export")):
            file = tmp_path / command[0]
            run(*command, str(file))
            assert file.stat().st_mode & 0o777 == 0o600
            before = file.read_bytes()
            assert "is there already and was not touched" in run.sentence(*command, str(file))
            assert file.read_bytes() == before
        again = run("ledger", "import", str(tmp_path / "ledger"))
        assert "0 new blocks with 0 entries; 1 were here before" in again
        assert "This is not a courier file" in run.sentence("ledger", "import", str(tmp_path / "backup"))
        assert "cannot be read" in run.sentence("ledger", "import", str(tmp_path / "nowhere"))
        (tmp_path / "foreign").write_bytes(
            CourierWriter(FleetId(bytes(16)), ReplicaId(bytes(16))).beginning({})
        )
        foreign = run.sentence("ledger", "import", str(tmp_path / "foreign"))
        assert "import it at the hub that its terminals are paired with" in foreign
        assert "once more" not in foreign, "another copy is of the same fleet"
        (tmp_path / "short").write_bytes((tmp_path / "ledger").read_bytes()[:-1])
        assert "Copy the file once more" in run.sentence("ledger", "import", str(tmp_path / "short"))
    finally:
        hub.stop(signal.SIGTERM)
    with Database.open(tmp_path / "backup", read_key(tmp_path / "hub.key", {})) as database:
        assert founding.is_founded(database)


@pytest.mark.parametrize("command", [("backup",), ("ledger", "export")], ids=["backup", "export"])
def test_a_full_stick_is_a_sentence_that_says_what_it_means_and_what_to_do(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """A backup is more than a buffer takes and fails before its end; a small export fails there."""
    run, file = Shell(hub, capsys), tmp_path / "copy"
    hub.start()
    try:
        run("topup", UID, "12.50")
        with capped_files(10):
            told = run.sentence(*command, str(file))
    finally:
        hub.stop(signal.SIGTERM)
    assert f"{file} cannot be written: File too large." in told
    assert "ledger is unchanged and nothing in it is lost; the file was not complete and is removed" in told
    assert "run the command again" in told
    assert [one.name for one in tmp_path.iterdir() if "copy" in one.name] == []


@pytest.mark.parametrize("command", [("backup",), ("ledger", "export")], ids=["backup", "export"])
def test_a_file_has_its_name_when_all_of_it_is_there(
    hub: HubProcess,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    """Whoever loses power half way has no half that looks like a whole; nor is what came meanwhile lost."""
    run, file = Shell(hub, capsys), tmp_path / "copy"
    (tmp_path / ".copy.part").write_bytes(b"of a command that was killed")
    named: list[bool] = []

    def looked_at(*asked: Any) -> int:
        size = download(*asked)
        named.append(file.exists())
        if len(named) > 1:
            file.write_bytes(b"another's")
        return size

    monkeypatch.setattr("hub.cli_files.download", looked_at)
    hub.start()
    try:
        run(*command, str(file))
        assert file.stat().st_size > 0
        file.unlink()
        assert "is there already and was not touched" in run.sentence(*command, str(file))
    finally:
        hub.stop(signal.SIGTERM)
    assert named == [False, False]
    assert file.read_bytes() == b"another's"
    assert not (tmp_path / ".copy.part").exists()


def test_commands_with_files_show_a_bar_to_a_person(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 3: courier files "with progress"."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    file = str(tmp_path / "file")
    hub.start()
    try:
        for command, shown in (
            (("backup", str(tmp_path / "copy")), "\rCopying ["),
            (("ledger", "export", file), "\rExporting "),
            (("ledger", "import", file), "\rImporting ["),
        ):
            assert main([*command, "--settings", str(hub.settings)]) == 0
            assert shown in capsys.readouterr().err
    finally:
        hub.stop(signal.SIGTERM)


def test_a_large_file_that_the_hub_reads_no_further_gets_its_answer(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stops reading at the first bytes; more of the file is on its way when it answers."""
    run = Shell(hub, capsys)
    hub.start()
    try:
        with (tmp_path / "film").open("wb") as file:
            file.write(b"no courier file")
            file.truncate(8 * 2**30)  # sparse; more than anybody sends before the hub hangs up
        assert "This is not a courier file" in run.sentence("ledger", "import", str(tmp_path / "film"))
    finally:
        hub.stop(signal.SIGTERM)


def test_a_day_that_no_clock_can_tell_is_refused(hub: HubProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Liberia was three quarters of an hour and thirty seconds off until 1972."""
    run = Shell(hub, capsys)
    hub.start()
    try:
        run("fleet", "set", "timezone=Africa/Monrovia")
        assert "1970-06-01 is no day of service" in run.sentence("report", "1970-06-01")
        assert "No terminal has taps on this day" in run("report", "yesterday")
    finally:
        hub.stop(signal.SIGTERM)


def test_a_file_that_broke_off_is_not_left_behind(hub: HubProcess, tmp_path: Path) -> None:
    """Half a backup that looks like one is worse than none."""
    assert "farebox-hub run" in sentence(hub.command("backup", str(tmp_path / "copy")))
    assert not (tmp_path / "copy").exists()


def test_the_demo_takes_no_settings_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--settings", "hub.toml", "demo"]) == 1
    assert "The demo makes settings of its own" in capsys.readouterr().err


def test_the_report_of_a_day_and_what_is_missing_are_asked_for(
    hub: HubProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Shell(hub, capsys)
    hub.start()
    try:
        assert "No terminal has taps on this day" in run("report", "yesterday")
        assert run("report") == run("report", "yesterday"), "a day that has not ended is always incomplete"
        assert main(["--settings", str(hub.settings), "report"]) == 0
        assert capsys.readouterr().out == run("report")
        assert ", closed " in run("day", "close", "2026-01-01")
        assert "has not ended" in run.sentence("day", "close", "today")
        assert "is not a day" in run.sentence("report", "someday")
        assert "Nothing is missing" in run("ledger", "waiting")
        assert "No block is in quarantine" in run("ledger", "forks")
        assert "Say which file" in run.sentence("ledger", "import")
        assert "Say which block" in run.sentence("ledger", "adopt")
        assert "Say whose" in run.sentence("ledger", "give-up")
        assert "Nothing is missing of this author" in run.sentence("ledger", "give-up", "00" * 16)
        assert "no such block" in run.sentence("ledger", "adopt", "00" * 32)
    finally:
        hub.stop(signal.SIGTERM)
