"""Telling systemd: the datagrams of sd_notify(3), and silence where nobody asked."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.notify import ServiceManager


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(tmp_path / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(5)
        yield listener, address


def test_the_datagrams_systemd_expects(systemd: tuple[socket.socket, str]) -> None:
    listener, address = systemd
    manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
    assert manager.ping_every_s == 15
    manager.ready("Bus 12")
    manager.status("online")
    manager.alive()
    manager.stopping()
    sent = [listener.recv(100) for _ in range(4)]
    assert sent == [b"READY=1\nSTATUS=Bus 12", b"STATUS=online", b"WATCHDOG=1", b"STOPPING=1"]


def test_an_abstract_socket_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0farebox-test-notify")
        listener.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": "@farebox-test-notify"}).alive()
        assert listener.recv(100) == b"WATCHDOG=1"


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    assert ServiceManager({}).ping_every_s is None
    ServiceManager({}).ready("x")
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).alive()


def test_without_a_watchdog_nobody_is_pinged(systemd: tuple[socket.socket, str]) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": systemd[1]}).ping_every_s is None
