"""Talking to the terminal that runs on this machine, over its control socket."""

import http.client
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.errors import ControlError

TIMEOUT_S = 180.0
"""Longest wait for an answer: pairing and syncing talk to the hub."""
MAX_ANSWER_BYTES = 1024 * 1024
DELTAS_HEADER = "Farebox-Deltas"
"""Of an export's answer: how many facts it is about to send."""
UNSEALED_HEADER = "Farebox-Unsealed"
"""Of an export's answer: how many facts of the terminal cannot be in it, because it is suspended."""

Json = dict[str, Any]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, url: str, body: Json | None = None) -> Json:
    """One request to the running terminal. Raises ControlError with a sentence."""
    with exchange(path, method, url, json.dumps(body or {}).encode()) as response:
        return _json(path, response)


def give(path: Path, url: str, parts: Iterable[bytes], size: int) -> Json:
    """Send `size` bytes, get JSON. Raises ControlError, and whatever `parts` raises."""
    with exchange(path, "POST", url, parts, {"Content-Length": str(size)}) as response:
        return _json(path, response)


@contextmanager
def exchange(
    path: Path, method: str, url: str, body: bytes | Iterable[bytes], headers: dict[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """A request and its good answer, to be read within the block. Raises ControlError with a sentence."""
    connection = UnixConnection(path, TIMEOUT_S)
    try:
        connection.request(method, url, body, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        if response.status != http.client.OK:
            said = _json(path, response)
            raise ControlError(str(said.get("message", f"The terminal refused (HTTP {response.status}).")))
        yield response
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ControlError(
            f"No terminal runs here: nothing listens at {path}."
            " Start it (sudo systemctl start farebox-edge), or name its settings file with --settings."
        ) from error
    except PermissionError as error:
        raise ControlError(f"You may not talk to the terminal at {path}; use sudo.") from error
    except (OSError, http.client.HTTPException) as error:
        raise ControlError(f"The terminal at {path} does not answer as it should ({error}).") from error
    finally:
        connection.close()


def _json(path: Path, response: http.client.HTTPResponse) -> Json:
    try:
        answer = json.loads(response.read(MAX_ANSWER_BYTES))
    except ValueError as error:
        raise ControlError(f"The terminal at {path} does not answer as it should ({error}).") from error
    if not isinstance(answer, dict):
        raise ControlError(f"What answers at {path} is not a terminal.")
    return answer
