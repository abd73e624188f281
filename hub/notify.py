"""Telling systemd how the service is: one datagram a message (sd_notify(3), "READY=1", "WATCHDOG=1")."""

import socket
from collections.abc import Mapping


class ServiceManager:
    """Sends to $NOTIFY_SOCKET where systemd set one, else does nothing. Never blocks, never raises."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        self._watchdog_s = int(watchdog_us) / 1_000_000 if watchdog_us.isdecimal() else 0.0

    @property
    def ping_every_s(self) -> float | None:
        """How often `alive` should be called, half of what systemd allows; None when it does not watch."""
        return self._watchdog_s / 2 if self._address and self._watchdog_s else None

    def ready(self, status: str) -> None:
        """The hub is up; `status` is what `systemctl status` shows."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """The hub works; without this for too long systemd restarts it."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The hub is going down on purpose."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(message.encode(), self._address)
            except OSError:
                return  # nobody listens, or its queue is full: the next message is as good
