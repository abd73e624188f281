"""Asking the running hub over its control socket, for the command line: one JSON request, one JSON answer."""

import http.client
import json
import socket
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from hub.errors import HubNotRunning, RequestRefused

TIMEOUT_S = 30.0


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, body: Mapping[str, object] | None = None) -> Any:
    """The hub's answer. HubNotRunning when nobody answers at `path`, RequestRefused when the answer is no."""
    connection = _UnixConnection(path)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(method, target, payload, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except PermissionError as error:
        raise HubNotRunning(
            f"The hub's control socket {path} is for the hub's own user and root. Run this with sudo."
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise HubNotRunning(
            f"No running hub answers at {path}. Start it with `farebox-hub run`, "
            "or name the settings of the running one with --settings."
        ) from error
    finally:
        connection.close()
    if response.status != HTTPStatus.OK:
        raise RequestRefused(str(answer.get("error", "")), str(answer.get("message", "")), response.status)
    return answer
