"""Ctrl-C for a command that waits for an answer."""

import signal
import socket
import subprocess


def interrupted(command: subprocess.Popen[str], listener: socket.socket) -> str:
    """What it says to somebody who stops it once its request has begun to come to this listener."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(1)
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=60)
    return errors
