"""systemd hears of start, life and stop; without systemd nothing happens."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.notify import ServiceManager


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(10)
        yield receiver


def test_the_messages_of_a_life(systemd: socket.socket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "60000000"})
    manager.ready("serving")
    manager.alive()
    manager.stopping()
    assert [systemd.recv(100) for _ in range(3)] == [b"READY=1\nSTATUS=serving", b"WATCHDOG=1", b"STOPPING=1"]
    assert manager.ping_every_s == 30


@pytest.mark.parametrize(
    "environment", [{}, {"NOTIFY_SOCKET": "/no/such/socket"}, {"WATCHDOG_USEC": "60000000"}]
)
def test_without_systemd_nothing_happens(environment: dict[str, str]) -> None:
    manager = ServiceManager(environment)
    manager.ready("serving")
    assert manager.ping_every_s is None
