"""The real hub with its ledger on a database server, and two of them on one."""

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.crdt.store.dumps import Dump
from tests.crdt.store.servers import SERVERS, Server
from tests.hub.processes import HubProcess, Shell

CARD = "04A1B2C3D4E5F6"


on_servers = pytest.mark.parametrize("server", list(SERVERS), indirect=True)


def hub_on(url: str, directory: Path, key_file: Path) -> HubProcess:
    """A hub with settings of its own, its ledger on the server."""
    directory.mkdir()
    hub = HubProcess(directory)
    hub.settings.write_text(
        'state_directory = "state"\nannounce.enabled = false\nserver.host = "127.0.0.1"\nserver.port = 0\n'
        f'store.key_file = "{key_file}"\nstore.url = "{url}"\n'
    )
    return hub


def two_on(url: str, directory: Path) -> tuple[HubProcess, HubProcess]:
    """Two hubs that share the database there and the key. The first is to found the fleet."""
    here, there = (hub_on(url, directory / name, directory / "hub.key") for name in ("here", "there"))
    (there.directory / "state").mkdir(mode=0o700)
    return here, there


@on_servers
def test_two_hubs_serve_one_ledger_on_a_server(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue: "several hub processes on one PostgreSQL"; what one books the other one knows, also later."""
    url = server.fresh()
    here, there = both = two_on(url, tmp_path)
    done = here.command("init")
    assert done.returncode == 0, done.stderr
    assert f"on {'127.0.0.1' if server.name == 'mariadb' else server.directory}" in done.stdout
    assert not (tmp_path / "here/state/ledger.db").exists()
    again = there.command("init")
    assert again.returncode == 1
    assert f"There is a fleet in {make_url(url).database} on" in again.stderr
    with ExitStack() as stack:
        for hub in both:
            hub.start()
            stack.callback(_stop, hub)
        at = {hub: Shell(hub, capsys) for hub in both}
        for number, hub in enumerate((here, there, here), 1):
            at[hub]("topup", CARD, "20.00", "--request", f"form-no-{number}")
        assert "nothing was added" in at[there]("topup", CARD, "20.00", "--request", "form-no-1")
        for hub in both:
            assert "60.00" in at[hub]("cards", "show", CARD)
        refused = at[here].sentence("backup", str(tmp_path / "copy"))
        assert "back it up with the server's own tools" in refused


@on_servers
def test_hubs_whose_database_goes_back_end_and_go_on_as_one(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invariants 4 and 5: systemd starts both again; they have one new identity and one notice for people."""
    url = server.fresh()
    here, _ = both = two_on(url, tmp_path)
    assert here.command("init").returncode == 0
    with ExitStack() as stack:
        for hub in both:
            hub.start()
        at = [Shell(hub, capsys) for hub in both]
        at[0]("topup", CARD, "20.00", "--request", "form-no-1")
        dump = Dump(server, url)
        at[1]("topup", CARD, "10.00", "--request", "form-no-2")
        dump.put_back()
        assert [hub.wait() for hub in both] == [1, 1]
        for hub in both:
            log = (hub.directory / "log.txt").read_text()
            assert "went back to an older state under this hub" in log.splitlines()[-1]
        for hub in both:
            hub.start()
            stack.callback(_stop, hub)
        at[0]("topup", CARD, "1.00", "--request", "form-no-3")
        at[1]("topup", CARD, "2.00", "--request", "form-no-4")
        for shell in at:
            assert "23.00" in shell("cards", "show", CARD)
            waits = shell("ledger", "waiting")
            assert "this hub's own marks" in waits
            assert len([line for line in waits.splitlines() if "marks" in line]) == 1


@on_servers
def test_a_second_start_with_the_same_settings_harms_nobody(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invariant 4: who is refused has not begun in the place of the one that runs."""
    url = server.fresh()
    here, _ = both = two_on(url, tmp_path)
    assert here.command("init").returncode == 0
    with ExitStack() as stack:
        for hub in both:
            hub.start()
            stack.callback(_stop, hub)
        _keep_port(here)
        second = here.command("run")
        assert second.returncode == 1
        (line,) = second.stderr.strip().splitlines()
        assert f"A hub process with the marks {here.directory / 'state/marks'} runs already" in line
        assert "a state directory of its own" in line
        assert "There is a fleet in" in here.command("init").stderr
        at = [Shell(hub, capsys) for hub in both]
        at[0]("topup", CARD, "20.00", "--request", "form-no-1")
        at[1]("topup", CARD, "10.00", "--request", "form-no-2")
        assert here.stop(signal.SIGKILL) == -signal.SIGKILL
        here.start()
        for shell in at:
            assert "30.00" in shell("cards", "show", CARD)
            assert "this hub's own marks" not in shell("ledger", "waiting")


def _keep_port(hub: HubProcess) -> None:
    """From now on its settings name the port that it has, as they do in a depot."""
    port = make_url(hub.url).port
    hub.settings.write_text(hub.settings.read_text().replace("server.port = 0", f"server.port = {port}"))


def _stop(hub: HubProcess) -> None:
    assert hub.stop(signal.SIGTERM) == 0
