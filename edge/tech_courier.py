"""`farebox-tech export` and `import`: a terminal's ledger onto a stick, a stick's blocks into the ledger.

A file appears under its name only when all of it is on the stick. Whatever is imported was verified block by
block, so importing again does no harm, nor does a file that was cut short, and later in full.
"""

import http.client
import json
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from crdt.block import parse
from crdt.courier import MAGIC, CourierReader
from crdt.errors import InputRefused
from crdt.facts import FleetId, ReplicaId
from crdt.frames import BlockFrame, Hello
from crdt.frontier import Frontier, joined
from crdt.session import Event, Refused
from crdt.store.new_file import new_file, refuse_taken
from edge.errors import ControlError
from edge.local import DELTAS_HEADER, UNSEALED_HEADER, Json, ask, exchange, give
from edge.progress import Progress

CHUNK_BYTES = 64 * 1024
SETTLEMENT = "settlement"
"""In place of an earlier file: leave out what the hub has signed for."""


class Tally:
    """What is in a courier file, as far as it was read; nothing is verified."""

    def __init__(self, status: Json) -> None:
        """`status`: of the terminal, whose fleet's files are read."""
        fleet, replica = bytes.fromhex(status["fleet"]), bytes.fromhex(status["replica"])
        self._reader = CourierReader(FleetId(fleet), ReplicaId(replica))
        self.deltas = 0
        self.blocks = 0
        self.trouble = ""
        """Why it cannot be read on, a sentence."""
        self._claimed: Frontier = {}

    def take(self, data: bytes) -> None:
        """The next bytes."""
        self._count(self._reader.receive_data(data))

    def end(self) -> None:
        """The file's end; `trouble` says whether it came too early."""
        self._count(self._reader.receive_eof())

    @property
    def covered(self) -> Frontier:
        """How far the file, or an earlier one that it goes on from, has each chain: what its terminal held
        then, and what the file itself has, for the hub's own blocks are only kept and not held. All of it
        once the end was read."""
        return joined(self._claimed, self._reader.heads or {})

    def _count(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Hello(frontier=frontier):
                    self._claimed = frontier
                case BlockFrame(raw):
                    self.blocks += 1
                    with suppress(InputRefused):
                        self.deltas += parse(raw).header.count
                case Refused(text=text):
                    self.trouble = text


def export_file(path: Path, options: Namespace) -> Json:
    """Write a courier file; `unsealed` taps are not in it. Raises ControlError with a sentence; then no new
    file is there. One that is there already stays as it is."""
    status = _paired(path)
    with _writing(options.file):
        refuse_taken(options.file)
    body = json.dumps({"after": _after(options.since, status)}).encode()
    tally = Tally(status)
    with (
        exchange(path, "POST", "/export", body) as response,
        _writing(options.file),
        new_file(options.file) as file,
    ):
        with Progress("exporting", int(response.headers[DELTAS_HEADER]), "entries") as progress:
            for chunk in _chunks(response):
                tally.take(chunk)
                file.write(chunk)
                progress.at(tally.deltas)
        tally.end()
        unsealed = int(response.headers[UNSEALED_HEADER])
        if tally.trouble:
            raise ControlError("The terminal broke the export off; no file was written. Try again.")
    told = {"blocks": tally.blocks, "taps": tally.deltas, "unsealed": unsealed}
    return {"file": str(options.file), **told, "revoked": status["revoked"]}


def import_file(path: Path, options: Namespace) -> Json:
    """Bring a courier file to the terminal. Raises ControlError with a sentence."""
    _paired(path)
    with _reading(options.file, _NOT_IMPORTED):
        size = options.file.stat().st_size
        file = options.file.open("rb")
    with file, Progress("importing", size, "bytes") as progress:
        return give(path, "/import", _sent(file, options.file, size, progress), size)


def _paired(path: Path) -> Json:
    status = ask(path, "GET", "/status")
    if not status["paired"]:
        raise ControlError("This terminal is not paired yet, so it has no ledger: farebox-tech pair CODE")
    return status


def _after(since: str, status: Json) -> dict[str, int] | None:
    """The number after which each replica's facts are wanted; None leaves that to the settlement."""
    if since == SETTLEMENT:
        return None
    if not since:
        return {}
    earlier, tally = Path(since), Tally(status)
    with _reading(earlier, _NOT_LEFT_OUT), earlier.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            tally.take(chunk)
    tally.end()
    if tally.trouble:
        raise ControlError(f"{earlier} cannot say what to leave out: {tally.trouble}. {_NOT_LEFT_OUT}")
    return {replica.hex(): head.seq for replica, head in tally.covered.items()}


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise ControlError("The terminal broke the export off; no file was written. Try again.") from error


def _sent(file: BinaryIO, path: Path, size: int, progress: Progress) -> Iterator[bytes]:
    """The file's bytes, exactly `size` of them. Raises ControlError when they cannot be had."""
    done = 0
    while done < size:
        with _reading(path, _IMPORT_GOES_ON):
            chunk = file.read(min(CHUNK_BYTES, size - done))
        if not done and not chunk.startswith(MAGIC[: len(chunk)]):
            raise ControlError(f"{path} is not a courier file: farebox-tech export makes one.")
        if not chunk:
            raise ControlError(f"{path} became shorter while it was read; import it again.")
        yield chunk
        done += len(chunk)
        progress.at(done)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise ControlError(f"{path} is there already and was not touched. Name another.") from error
    except BlockingIOError as error:
        raise ControlError(f"Another command is writing {path}. Wait for it, or name another.") from error
    except OSError as error:
        raise ControlError(
            f"{path} cannot be written ({error.strerror or error}); nothing of it is there. Is the stick"
            " full, write-protected, or pulled? The taps are safe in the terminal."
        ) from error


_NOT_IMPORTED = "Nothing was imported. Look whether the name is right and the stick is in."
_IMPORT_GOES_ON = "What was imported before stays, and importing it again goes on from there."
_NOT_LEFT_OUT = (
    "Nothing was exported, and the taps are safe in the terminal. Name an earlier courier file of this fleet,"
    " or export all of them without --since."
)


@contextmanager
def _reading(path: Path, advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ControlError(f"{path} cannot be read ({error.strerror or error}). {advice}") from error
