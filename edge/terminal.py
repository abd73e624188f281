"""What this terminal is right now: paired or not, its ledger, the fares it knows.

The tap thread and the uplink share it. A tap holds `using()`, so that an old identity never writes after its
last block is sealed.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from crdt.documents import FLEET_DOCUMENT, TERMINAL_DOCUMENT, FleetDocument, SignedDocument
from crdt.errors import ForeignFleet, InputRefused
from crdt.facts import TerminalId
from crdt.fleet import FleetSettings
from crdt.store.database import Database
from crdt.store.marks import Marks
from crdt.store.terminal import NO_SECRETS, TerminalLedger
from crdt.terminal_document import TERMINAL_EDITS, TerminalDocument
from edge.errors import NotCompared, PairedElsewhere, Superseded
from edge.identity import SECRET, Identity, load_identity
from edge.promised import PROMISED, Promised, load_promised

CLOCK_EPOCH = "clock_epoch"
CLOCK_FLOOR = "clock_floor"

_OLD_COPY = (
    "While it was paired, the terminal's storage turned out to be an old copy. It stays what it was and keeps"
    " its taps, and gets a new identity from the hub by itself: farebox-tech sync. To pair it all the same,"
    " ask for a new code."
)
_REVOKED = (
    "While it was paired, the terminal was revoked by an operator. It keeps its taps. To pair it all the"
    " same, ask for a new code."
)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A paired terminal. `fares` is None until the hub has sent the fleet's settings."""

    identity: Identity
    ledger: TerminalLedger
    fares: FleetSettings | None
    fares_version: int
    document: TerminalDocument
    """What technician and hub have set of this terminal."""


@dataclass(frozen=True, slots=True)
class _Now:
    """What changes at once or not at all."""

    enrolment: Enrolment | None
    promised: Promised | None


class Terminal:
    """Holds the enrolment. Its methods wait for the disk: not for the event loop."""

    def __init__(self, database: Database, marks: Marks | None = None) -> None:
        """Load what the database holds. Raises IdentityError or StoreError.

        `marks`: the high-water marks beside the database; without them nothing notices a restored one.
        """
        self._database = database
        self._marks = marks
        self._changing = threading.Lock()
        self._in_use = threading.Lock()
        self._syncing = threading.Lock()
        promised, identity = load_promised(database), load_identity(database)
        self._now = _Now(None if identity is None else self._enrolled(identity), promised)

    @property
    def enrolment(self) -> Enrolment | None:
        """What the terminal is at this moment; for reading only, it may be replaced at any time."""
        return self._now.enrolment

    @property
    def promised(self) -> Promised | None:
        """What the hub has given instead of the present identity, which it has ended: see comparing.py."""
        return self._now.promised

    @property
    def failed(self) -> bool:
        """Whether the ledger has stopped working until the program is started again."""
        return self._database.failed

    @contextmanager
    def using(self) -> Iterator[Enrolment | None]:
        """The enrolment, which is not replaced by another pairing until the block ends. For the tap path."""
        with self._in_use:
            yield self._now.enrolment

    @contextmanager
    def syncing(self, identity: Identity) -> Iterator[None]:
        """The ledger is this identity's until the block ends. For the uplink, one step at a time.

        Raises Superseded when the terminal is another by now: a ledger retires when the next is made, because
        two on one database, each with its own memory of it, would undo each other's work.
        """
        with self._syncing:
            enrolment = self._now.enrolment
            if enrolment is None or enrolment.identity is not identity:
                raise Superseded("The terminal was paired anew meanwhile.")
            yield

    def promise(self, promised: Promised, instead_of: Identity) -> None:
        """Keep what the hub has given instead of an identity; durable on return. Raises Superseded."""
        with self.syncing(instead_of), self._changing:
            self._database.put_secret(PROMISED, promised.encode())
            self._now = replace(self._now, promised=promised)

    def enrol(self, identity: Identity, instead_of: Identity | None = None) -> None:
        """Become `identity`, for good. Taps of an earlier identity are sealed first and stay to be sent;
        those of a suspended one are written again under this one.

        Waits for what the uplink is doing with the ledger, and for the tap in hand. Raises PairedElsewhere
        when the ledger belongs to another fleet, Superseded when the terminal is not `instead_of` any more,
        which was compared with the hub (None: nothing was), and NotCompared when it had to be: then nothing
        has changed.
        """
        with self._syncing, self._changing, self._in_use:
            before = self._now.enrolment
            if instead_of is not None and (before is None or before.identity is not instead_of):
                raise Superseded("The terminal was paired anew meanwhile.")
            if before is not None:
                if before.identity.fleet != identity.fleet:
                    raise PairedElsewhere(_elsewhere(before))
                if before.ledger.suspended and instead_of is None:
                    raise NotCompared(_REVOKED if before.ledger.revoked else _OLD_COPY)
                before.ledger.retire()
            self._now = _Now(self._enrolled(identity, {SECRET: identity.encode(), PROMISED: b""}), None)

    def adopt(self, document: SignedDocument) -> bool:
        """Use a verified fleet document from now on, unless the one in use is as new; True when it is used.

        Raises InputRefused when it cannot be read; then nothing changes.
        """
        fares = FleetDocument.load(document.body).settings
        with self._changing:  # and not _in_use: a tap goes on with the old fares meanwhile
            enrolment = self._now.enrolment
            if enrolment is None or document.version <= enrolment.fares_version:
                return False
            enrolment.ledger.put_document(document)
            self._use(replace(enrolment, fares=fares, fares_version=document.version))
            return True

    def text(self, name: str, otherwise: str) -> str:
        """What the terminal's document says of a field; `otherwise` where it says nothing. Never waits."""
        enrolment = self._now.enrolment
        return ("" if enrolment is None else enrolment.document.text(name)) or otherwise

    def edit(self, changes: Mapping[str, str]) -> bool:
        """Set fields of the terminal's document, for good; False when it is not paired and has none.

        Raises SettingRefused for a field there is not or a text that does not fit; then nothing changes.
        """
        with self._changing:
            enrolment = self._now.enrolment
            if enrolment is not None:
                self._keep(enrolment, enrolment.document.edited(TERMINAL_EDITS, changes))
            return enrolment is not None

    def merge(self, signed: SignedDocument) -> bool:
        """Merge the hub's document of this terminal, verified; whether the hub lacks something of it now.

        Raises InputRefused when it is not of this terminal or cannot be read; then nothing changes.
        """
        with self._changing:
            enrolment = self._now.enrolment
            if enrolment is None:
                return False
            theirs = TerminalDocument.of(signed, enrolment.identity.certificate.terminal)
            merged = enrolment.document.merged(theirs, TERMINAL_EDITS)
            self._keep(enrolment, merged)
            return merged.version != theirs.version

    def next_clock_epoch(self) -> int:
        """A number for the clock's epoch that was never used before."""
        stored = self._database.get_secret(CLOCK_EPOCH)
        epoch = 1 + (int.from_bytes(stored, "big") if stored else 0)
        self.save_clock_epoch(epoch)
        return epoch

    def save_clock_epoch(self, epoch: int) -> None:
        """Keep the epoch; durable on return."""
        self._database.put_secret(CLOCK_EPOCH, epoch.to_bytes(8, "big"))

    @property
    def clock_floor_ms(self) -> int:
        """Before which the clock does not go back, see `TerminalClock.dated_from`; 0 for none."""
        return int.from_bytes(self._database.get_secret(CLOCK_FLOOR) or b"", "big")

    def save_clock_floor(self, floor_ms: int) -> None:
        """Keep that; durable on return."""
        self._database.put_secret(CLOCK_FLOOR, floor_ms.to_bytes(8, "big"))

    def _keep(self, enrolment: Enrolment, document: TerminalDocument) -> None:
        """Durable first, and then in use. A tap in hand goes on with what was."""
        if document.version != enrolment.document.version:
            enrolment.ledger.put_document(signed_by(enrolment.identity, document))
            self._use(replace(enrolment, document=document))

    def _use(self, enrolment: Enrolment) -> None:
        self._now = replace(self._now, enrolment=enrolment)

    def _enrolled(self, identity: Identity, secrets: Mapping[str, bytes] = NO_SECRETS) -> Enrolment:
        try:
            ledger = TerminalLedger(
                self._database,
                identity.fleet_public_key,
                identity.keys.signing,
                identity.certificate,
                self._marks,
                secrets,
            )
        except ForeignFleet as error:
            raise PairedElsewhere(f"{error}.") from error
        fares, fares_version = _fares(ledger)
        return Enrolment(identity, ledger, fares, fares_version, _own(ledger, identity.certificate.terminal))


def signed_by(identity: Identity, document: TerminalDocument) -> SignedDocument:
    """A terminal's document as it travels up."""
    key = identity.keys.signing
    return SignedDocument.seal(key, identity.fleet, TERMINAL_DOCUMENT, document.version, document.body)


# A document that an older program stored and this one cannot read is as good as none: the hub sends its own.


def _fares(ledger: TerminalLedger) -> tuple[FleetSettings | None, int]:
    stored = ledger.document(FLEET_DOCUMENT)
    if stored is not None:
        with suppress(InputRefused):
            return FleetDocument.load(stored.body).settings, stored.version
    return None, 0


def _own(ledger: TerminalLedger, terminal: TerminalId) -> TerminalDocument:
    stored = ledger.document(TERMINAL_DOCUMENT)
    if stored is not None:
        with suppress(InputRefused):
            return TerminalDocument.of(stored, terminal)
    return TerminalDocument.new(terminal)


def _elsewhere(enrolment: Enrolment) -> str:
    count, _ = enrolment.ledger.held()
    return (
        f"This terminal belongs to fleet {enrolment.identity.fleet.hex()} and holds {count} taps that its hub"
        " has not settled. To move it to another fleet, sync it with its own hub first, then start it with an"
        " empty state_directory and a new store.key_file."
    )
