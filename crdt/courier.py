"""Courier files: blocks on a USB stick or a laptop. One session as bytes, of any size, read in pieces.

    magic | HELLO of the exporter | for each replica: CERTIFICATE, BLOCK …  | HEADS …

HEADS at the end say how far the file goes, so one that was cut short is noticed, between two blocks too;
what came before is good all the same, because every block proves itself. Importing again changes nothing.
"""

from typing import Final

from crdt.errors import Malformed
from crdt.facts import FleetId, ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, Heads, Hello
from crdt.frontier import MAX_FRONTIER, Frontier, Head, parts
from crdt.session import Event, Refused, Session

MAGIC: Final = b"farebox courier v1\n"
MAX_COURIER_BYTES: Final = 64 * 2**30
MAX_COURIER_FRAMES: Final = 2**31


class CourierWriter:
    """Makes the bytes of a courier file, piece by piece."""

    def __init__(self, fleet: FleetId, replica: ReplicaId) -> None:
        self._session = Session(fleet, replica)

    def beginning(self, frontier: Frontier) -> bytes:
        """The first bytes. `frontier`: what the exporter holds; the first MAX_FRONTIER of it are told."""
        return MAGIC + self._session.hello(parts(frontier)[0])

    def message(self, message: CertificateFrame | BlockFrame) -> bytes:
        """The bytes of a certificate or block."""
        return self._session.send(message)

    def end(self, frontier: Frontier) -> bytes:
        """The last bytes. `frontier`: the heads of what was put in."""
        told = parts(frontier)
        if len(told[-1]) == MAX_FRONTIER:  # a full one says that another follows
            told.append({})
        return b"".join(self._session.send(Heads(part)) for part in told)


class CourierReader:
    """Reads a courier file in pieces of any size; holds at most one unfinished message. Never raises."""

    def __init__(self, fleet: FleetId, replica: ReplicaId) -> None:
        """`fleet`: whose files are taken. `replica`: who reads."""
        self._session = Session(fleet, replica, max_bytes=MAX_COURIER_BYTES, max_frames=MAX_COURIER_FRAMES)
        self._magic = b""
        self._over = False  # after a Refused or Ended; whatever else comes is dropped
        self._told: dict[ReplicaId, Head] = {}  # at its end, as far as it was read
        self.heads: Frontier | None = None  # what the file holds, once its end was seen

    def receive_data(self, data: bytes) -> list[Event]:
        """The messages that `data` completes; the last one is a Refused where the file is unusable."""
        if self._over:
            return []
        if len(self._magic) < len(MAGIC):
            wanted = len(MAGIC) - len(self._magic)
            self._magic += data[:wanted]
            data = data[wanted:]
            if not MAGIC.startswith(self._magic):
                return [self._refused("this is not a courier file")]
        return self._checked(self._session.receive_data(data))

    def receive_eof(self) -> list[Event]:
        """Ended, or Refused where the file was cut short."""
        if self._over:
            return []
        if self.heads is None:
            return [self._refused("the courier file was cut short; what came before its end was taken")]
        self._over = True
        return self._session.receive_eof()

    def _checked(self, events: list[Event]) -> list[Event]:
        for at, event in enumerate(events):
            if self.heads is not None:
                return [*events[:at], self._refused("the courier file goes on after its end")]
            if isinstance(event, Heads):
                self._told |= event.frontier
                self.heads = self._told if len(event.frontier) < MAX_FRONTIER else None
            elif isinstance(event, Refused):
                self._over = True
            elif self._told or not isinstance(event, Hello | CertificateFrame | BlockFrame):
                return [*events[:at], self._refused(f"a {type(event).__name__} is not for a courier file")]
        return events

    def _refused(self, sentence: str) -> Event:
        self._over = True
        error = Malformed(sentence)
        return Refused(error.code, str(error))
