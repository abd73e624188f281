"""Asking the running hub over its control socket, for the command line: one JSON request, one JSON answer."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from hub.errors import FileTrouble, HubFailed, HubNotRunning, RequestRefused, Stopped

TIMEOUT_S = 30.0
FILE_TIMEOUT_S = 900.0  # a backup of a large ledger takes its time before it begins
PIECE_BYTES = 256 * 1024


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


Progress = Callable[[int, int | None], None]  # bytes so far, and in all where that is known


def download(path: Path, target: str, file: BinaryIO, name: Path, progress: Progress) -> int:
    """Write the hub's answer to `file`, which people call `name`; its length in bytes. Raises as `ask` does,
    and FileTrouble."""
    stopped = "Stopped. The file was not complete and is removed; the ledger is unchanged."
    with _answering(path, FILE_TIMEOUT_S, stopped) as connection:
        connection.request("GET", target)
        response = connection.getresponse()
        _check(response)
        expected, done = response.length, 0
        while piece := response.read(PIECE_BYTES):
            _write(file, name, piece)
            done += len(piece)
            progress(done, expected)
        if expected is not None and done != expected:
            raise http.client.IncompleteRead(b"", expected - done)
        return done


def upload(path: Path, target: str, file: BinaryIO, size: int, progress: Progress) -> Any:
    """Send `file` to the hub; its answer. Raises as `ask` does, and FileTrouble."""
    stopped = (
        "Stopped. What the hub had taken by then is in the ledger. Import it again: nothing counts twice."
    )

    def pieces() -> Iterator[bytes]:
        done = 0
        while piece := _read(file):
            yield piece
            done += len(piece)
            progress(done, size)

    with _answering(path, FILE_TIMEOUT_S, stopped) as connection:
        headers = {"Content-Type": "application/octet-stream"}
        with suppress(BrokenPipeError, ConnectionResetError):  # it has read enough, and its answer says why
            connection.request("POST", target, pieces(), headers, encode_chunked=True)
        response = connection.getresponse()
        _check(response)
        return json.loads(response.read())


def ask(path: Path, method: str, target: str, body: Mapping[str, object] | None = None) -> Any:
    """The hub's answer. HubNotRunning when nobody answers at `path`, RequestRefused when the answer is no,
    HubFailed when it says nothing that could be understood, Stopped when Ctrl-C came before the answer."""
    with _answering(path, TIMEOUT_S, _STOPPED if method == "POST" else "Stopped.") as connection:
        payload = None if body is None else json.dumps(body)
        connection.request(method, target, payload, {"Content-Type": "application/json"})
        response = connection.getresponse()
        _check(response)
        return json.loads(response.read())


def unwritten(name: Path, error: OSError) -> FileTrouble:
    """What a person is told of a file that could not be written to its end, and that is removed for it."""
    return FileTrouble(
        f"{name} cannot be written: {error.strerror}. The ledger is unchanged and nothing in it is lost; the "
        "file was not complete and is removed. Look whether the disk or stick is full, write-protected or "
        "pulled out, and run the command again."
    )


def _write(file: BinaryIO, name: Path, piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        raise unwritten(name, error) from error


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(PIECE_BYTES)
    except OSError as error:
        raise FileTrouble(
            f"{file.name} cannot be read any further: {error.strerror}. What came before is in the ledger. "
            "Copy the file once more and import it again: nothing counts twice."
        ) from error


def _check(response: http.client.HTTPResponse) -> None:
    """RequestRefused unless the hub does what it was asked; HubFailed where it does not say why."""
    if response.status == HTTPStatus.OK:
        return
    try:
        answer = json.loads(response.read())
        code, sentence = str(answer["error"]), str(answer["message"])
    except (ValueError, KeyError, TypeError) as error:
        raise HubFailed(
            f"The hub runs, but it failed at this (HTTP {response.status}). Its log says why "
            "(journalctl -u farebox-hub). Look whether it was done before you ask again."
        ) from error
    raise RequestRefused(code, sentence, response.status)


_STOPPED = "Stopped before the hub had answered. Look whether this was done before you ask again."


@contextmanager
def _answering(path: Path, timeout_s: float, stopped: str) -> Iterator[http.client.HTTPConnection]:
    """A connection to the hub; HubNotRunning where nobody answers, or nobody any more.

    `stopped`: what somebody is told who presses Ctrl-C.
    """
    connection = _UnixConnection(path, timeout_s)
    try:
        _connect(connection, path)
        yield connection
    except KeyboardInterrupt:
        raise Stopped(stopped) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise HubNotRunning(
            f"The hub at {path} broke off, or took longer than {timeout_s:.0f} s. Look whether it runs, and "
            "into its log (journalctl -u farebox-hub); and whether this was done before you ask again."
        ) from error
    finally:
        connection.close()


def _connect(connection: http.client.HTTPConnection, path: Path) -> None:
    try:
        connection.connect()
    except PermissionError as error:
        raise HubNotRunning(
            f"The hub's control socket {path} is for the hub's own user and root. Run this with sudo."
        ) from error
    except OSError as error:
        raise HubNotRunning(
            f"No running hub answers at {path}. Start it with `farebox-hub run`, "
            "or name the settings of the running one with --settings."
        ) from error
