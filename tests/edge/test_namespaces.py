"""Two terminals in two network namespaces, joined by a cable and nothing else: no hub, and yet they agree.

Real programs, real zeroconf, real TLS. A namespace has interfaces, addresses and routes of its own, so that
neither terminal can reach the other but over that cable.
"""

import dataclasses
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edge import tech
from edge.local import ask
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, PATIENCE_S
from tests.edge.program import Bus, Program
from tests.needs import missing, needs_program

UID = "04A1B2C3D4E5F6"
ADDRESSES = ("192.0.2.1/24", "192.0.2.2/24")  # RFC 5737, for documentation
CABLE = "cable"


@pytest.fixture
def namespaces() -> Iterator[list[list[str]]]:
    """Two network namespaces with a cable between them; for each the command that runs something in it."""
    ip = str(needs_program("ip", "make network namespaces"))
    if os.geteuid() != 0:
        missing("not root: needed to make network namespaces")
    names = [f"farebox-{os.getpid()}-{number}" for number in (1, 2)]
    with ExitStack() as made:
        for name in names:
            run(ip, "netns", "add", name)
            made.callback(run, ip, "netns", "del", name)
        one, other = names
        run(ip, "link", "add", CABLE, "netns", one, "type", "veth", "peer", "name", CABLE, "netns", other)
        for name, address in zip(names, ADDRESSES, strict=True):
            run(ip, "-n", name, "address", "add", address, "dev", CABLE)
            for interface in ("lo", CABLE):
                run(ip, "-n", name, "link", "set", interface, "up")
        yield [[ip, "netns", "exec", name] for name in names]


def run(*command: str) -> None:
    """Run it; where the machine does not let us, the test has nothing to stand on."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (iproute2)
    if done.returncode:
        missing(f"{' '.join(command)} failed ({done.stderr.strip()}): needed to make network namespaces")


def asked(bus: Bus, url: str) -> dict[str, Any]:
    return ask(bus.settings.control_socket, "GET", url)


def until(condition: Callable[[], bool]) -> None:
    """Wait for the terminals to make it true."""
    give_up_s = time.monotonic() + 2 * PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s, "the terminals do not come together"
        time.sleep(0.05)


def is_met(bus: Bus) -> bool:
    return [peer["online"] and peer["companion"] for peer in asked(bus, "/peers")["peers"]] == [True]


@pytest.mark.timeout(240)
def test_two_doors_without_a_hub_see_each_others_taps_and_agree(
    namespaces: list[list[str]], tmp_path: Path, fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Passback and balances hold across doors, and then both hold the same sealed ledger."""
    doors = [Bus(tmp_path / name) for name in ("front", "rear")]
    fares = dataclasses.replace(FARES, passback_window_s=600)
    with ExitStack() as running:
        readers: list[Program] = []
        terminals: list[Program] = []
        for door, within in zip(doors, namespaces, strict=True):
            door.directory.mkdir()
            door.configure(peers=True)
            door.enrol(fleet, fares)
            readers.append(running.enter_context(door.reader()))
            terminals.append(running.enter_context(door.terminal(within=within)))
        for terminal in terminals:
            terminal.line_with("ready")
        until(lambda: all(is_met(door) for door in doors))
        assert tech.main(["--settings", str(doors[0].settings_file), "peers"]) == 0
        assert "this vehicle     online at 192.0.2.2:" in capsys.readouterr().out

        readers[0].say(f"present ntag215:{UID}")
        assert "7.50 EUR left" in terminals[0].line_with("accepted")
        until(lambda: asked(doors[1], f"/cards/{UID}")["balance_minor"] == 750)
        readers[1].say(f"present ntag215:{UID}")
        assert "used a moment ago" in terminals[1].line_with("refused")

        until(lambda: asked(doors[1], "/status")["foreign_blocks"] == 1)
        front, rear = (asked(door, "/status") for door in doors)
        assert front["digest"] == rear["digest"] != ""
        assert (front["held"], rear["held"], rear["believed"]) == (2, 2, 0)
        assert front["balanced"]
        assert rear["balanced"]
        assert not front["online"], "there is no hub"
        for terminal in terminals:
            assert terminal.stop() == 0
            assert "Traceback" not in terminal.errors
