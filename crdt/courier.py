"""Courier files: blocks on a USB stick or a laptop. One session as bytes, of any size, read in pieces.

    magic | HELLO of the exporter | CERTIFICATE, DOCUMENT | for each replica: CERTIFICATE, BLOCK …
    | HEADS … | SHA-256 of all before

The document is the list of revocations: what a replaced terminal has written again counts twice without it.
HEADS at the end say how far the file goes, so one that was cut short is noticed, between two blocks too, and
the checksum that they are what was written; what came before is good all the same, because every block
proves itself. Importing again changes nothing.
"""

from hashlib import sha256
from typing import Final

from crdt.errors import InputRefused, Malformed, MisuseError, RefusalCode, TooLarge
from crdt.facts import FleetId, ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame, Heads, Hello
from crdt.frontier import MAX_FRONTIER, Frontier, Head, parts
from crdt.session import Event, Refused, Session

MAGIC: Final = b"farebox courier v1\n"
CHECKSUM_BYTES: Final = 32
NO_COURIER_FILE: Final = (
    "this is not a courier file; farebox-tech export and farebox-hub ledger export make one"
)
OTHER_FLEET: Final = (
    "this courier file is of another fleet; import it at the hub that its terminals are paired with"
)
DAMAGED: Final = "the courier file is damaged; the blocks that prove themselves were taken"
OF_NO_USE: Final = frozenset({RefusalCode.FOREIGN_FLEET, RefusalCode.UNSUPPORTED})
"""Why a file cannot be read, whatever copy of it: what is in it is not for who reads it."""
CUT_SHORT: Final = "the courier file was cut short; what came before its end was taken"
TOO_MANY_AUTHORS: Final = (
    "the courier file names more authors than one can have; what came before its end was taken"
)
MAX_COURIER_BYTES: Final = 64 * 2**30
MAX_COURIER_FRAMES: Final = 2**31
MAX_COURIER_HEADS: Final = 4  # messages of HEADS, which a reader holds until the checksum
MAX_COURIER_AUTHORS: Final = MAX_COURIER_HEADS * MAX_FRONTIER - 1  # a full message is followed by another


def lacks_room(authors: int) -> str:
    """Why one file does not hold the blocks of so many authors, a clause; "" where it does. To be asked
    before its beginning, for else it is told only at the end."""
    if authors <= MAX_COURIER_AUTHORS:
        return ""
    return f"a courier file has room for {MAX_COURIER_AUTHORS:,} authors, and these blocks are of {authors:,}"


Carried = CertificateFrame | DocumentFrame | BlockFrame
"""What a courier file has between its beginning and its end."""


class CourierWriter:
    """Makes the bytes of a courier file, piece by piece, in the order in which they are asked for."""

    def __init__(self, fleet: FleetId, replica: ReplicaId) -> None:
        self._session = Session(fleet, replica)
        self._sum = sha256()

    def beginning(self, frontier: Frontier) -> bytes:
        """The first bytes. `frontier`: what the exporter holds; the first MAX_FRONTIER of it are told."""
        return self._summed(MAGIC + self._session.hello(parts(frontier)[0]))

    def message(self, message: Carried) -> bytes:
        """The bytes of a certificate, of the list of revocations, or of a block."""
        return self._summed(self._session.send(message))

    def end(self, frontier: Frontier) -> bytes:
        """The last bytes. `frontier`: the heads of what was put in. Raises MisuseError where there are more
        than it has room for: see `lacks_room`."""
        told = parts(frontier)
        if len(told[-1]) == MAX_FRONTIER:  # a full one says that another follows
            told.append({})
        if len(frontier) > MAX_COURIER_AUTHORS:
            raise MisuseError(f"a courier file has room for the heads of fewer authors than {len(frontier)}")
        heads = self._summed(b"".join(self._session.send(Heads(part)) for part in told))
        return heads + self._sum.digest()

    def _summed(self, data: bytes) -> bytes:
        self._sum.update(data)
        return data


class CourierReader:
    """Reads a courier file in pieces of any size. Never raises.

    Holds at most one unfinished message, what may be the checksum until more comes, and until that fits the
    heads, of which there are at most MAX_COURIER_HEADS messages.
    """

    def __init__(self, fleet: FleetId, replica: ReplicaId) -> None:
        """`fleet`: whose files are taken. `replica`: who reads."""
        self._session = Session(fleet, replica, max_bytes=MAX_COURIER_BYTES, max_frames=MAX_COURIER_FRAMES)
        self._magic = b""
        self._over = False  # after a Refused or Ended; whatever else comes is dropped
        self._sum = sha256()
        self._tail = b""  # the last bytes that came
        self._told: list[Heads] = []  # the heads at its end, as far as they were read
        self._whole = False  # whether the last of them was
        self.heads: Frontier | None = None  # what the file holds, once its end was seen

    def receive_data(self, data: bytes) -> list[Event]:
        """The messages that `data` completes; the last one is a Refused where the file is unusable."""
        if self._over:
            return []
        self._tail += data
        data, self._tail = self._tail[:-CHECKSUM_BYTES], self._tail[-CHECKSUM_BYTES:]
        return self._read(data)

    def receive_eof(self) -> list[Event]:
        """HEADS and Ended, or Refused where the file was cut short or is damaged."""
        if self._over:
            return []
        if self._whole and self._tail == self._sum.digest():
            ended = self._session.receive_eof()
            self._over = True
            if isinstance(ended[-1], Refused):
                return ended
            self.heads = _heads(self._told)
            return [*self._told, *ended]
        if self._whole:
            return [self._refuse(Malformed(DAMAGED))]
        events = self._read(self._tail)
        if not self._over:
            events += [self._refuse(Malformed(CUT_SHORT))]
        return events

    def _read(self, data: bytes) -> list[Event]:
        self._sum.update(data)
        if len(self._magic) < len(MAGIC):
            wanted = len(MAGIC) - len(self._magic)
            self._magic += data[:wanted]
            data = data[wanted:]
            if not MAGIC.startswith(self._magic):
                self._over = True
                return [Refused(RefusalCode.UNSUPPORTED, NO_COURIER_FILE)]
        return self._checked(self._session.receive_data(data))

    def _checked(self, events: list[Event]) -> list[Event]:
        taken: list[Event] = []
        for event in events:
            refused = self._refusal(event)
            if refused is not None:
                return [*taken, refused]
            if isinstance(event, Heads):
                self._told.append(event)
                self._whole = len(event.frontier) < MAX_FRONTIER
            else:
                taken.append(event)
        return taken

    def _refusal(self, event: Event) -> Refused | None:
        """Why nothing is taken from here on; None where this may come here."""
        if self._whole:
            return self._refuse(Malformed("the courier file goes on after its end"))
        match event:
            case Refused(code=code):
                self._over = True
                return Refused(code, OTHER_FLEET) if code is RefusalCode.FOREIGN_FLEET else event
            case Heads(frontier=frontier):
                return self._refusal_of_heads(frontier)
            case Hello() | CertificateFrame() | DocumentFrame() | BlockFrame() if not self._told:
                return None
            case _:
                return self._refuse(Malformed(f"a {type(event).__name__} is not for a courier file"))

    def _refusal_of_heads(self, frontier: Frontier) -> Refused | None:
        if len(self._told) == MAX_COURIER_HEADS:
            return self._refuse(TooLarge(TOO_MANY_AUTHORS))
        if frontier and self._told and min(frontier) <= max(self._told[-1].frontier):
            return self._refuse(Malformed("the heads of the courier file are not in ascending order"))
        return None

    def _refuse(self, error: InputRefused) -> Refused:
        self._over = True
        self._told.clear()
        return Refused(error.code, str(error))


def _heads(told: list[Heads]) -> Frontier:
    heads: dict[ReplicaId, Head] = {}
    for message in told:
        heads |= message.frontier
    return heads
