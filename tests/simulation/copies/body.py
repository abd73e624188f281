"""A body: one of several copies of a terminal's storage, with the terminal's real program on it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from unittest import mock

from crdt.errors import InputRefused
from crdt.facts import CardId, Context, Draft, Kind
from crdt.frames import Message
from crdt.protocol import PAIR_FINISH, RENEW
from crdt.session import Session
from crdt.store.marks import Marks
from crdt.store.terminal import TerminalLedger
from edge import enrolling
from edge import pairing as edge_pairing
from edge.acquaintances import Acquaintances
from edge.addresses import AddressBook, HubAddress
from edge.calling import Caller
from edge.enrolling import Enroller, Way
from edge.errors import EdgeError, HubRefused, HubTooSlow, HubUnreachable
from edge.exchange import Answer, split
from edge.identity import Identity
from edge.presence import Presence
from edge.sync import Outcome
from edge.terminal import Terminal
from hub.authority import serial_of
from hub.errors import RequestRefused
from tests.simulation.copies.hub import LOOP, Position, powered
from tests.simulation.copies.rides import Ride
from tests.simulation.disks import Image, empty_disk

if TYPE_CHECKING:
    from tests.simulation.copies.world import World

ADDRESS: Final = HubAddress("hub", 1)
MAX_EXCHANGES: Final = 400  # in one run

Done = Outcome | EdgeError | InputRefused | None


@dataclass(frozen=True)
class Copy:
    """Of a storage."""

    image: Image
    marks: bytes  # what lies beside it; b"" where that was not copied
    rides: frozenset[Ride]  # that whoever has it took, or had when it was copied
    position: Position  # of the settlement in it


class Body:
    """One storage, whoever it is."""

    def __init__(self, world: World, name: str, bus: str, copy: Copy | None = None) -> None:
        """`bus`: the name under which it is paired."""
        self.world, self.name, self.bus = world, name, bus
        self.disk = empty_disk()
        self.marks = b""
        self.rides: set[Ride] = set()  # that it may not lose
        self.away = False  # out of the hub's reach
        self.exchanges = 0
        self._presence: Presence | None = None
        if copy is None:
            self.start()
        else:
            self.put_back(copy)

    def start(self) -> None:
        """Start the program on what is on the disk."""
        database: Any = self.disk.start(powered, eager=True)
        self.terminal = Terminal(database, Marks(self.marks, self._put_marks, self.world.entropy))
        self._caller = Caller(
            self.terminal, self._connected, self._describe, cast(Any, None), self.world.entropy
        )

    @property
    def ledger(self) -> TerminalLedger:
        """The ledger of whoever it is now."""
        assert self.terminal.enrolment is not None
        return self.terminal.enrolment.ledger

    @property
    def identity(self) -> Identity:
        """Whoever it is now."""
        assert self.terminal.enrolment is not None
        return self.terminal.enrolment.identity

    @property
    def presence(self) -> Presence:
        """What it is among its peers."""
        if self._presence is None or self._presence.ledger is not self.ledger:
            no_tls = cast(Any, None)
            self._presence = Presence(
                self.identity, self.ledger, Acquaintances(self.ledger), no_tls, no_tls, frozenset()
            )
        return self._presence

    @property
    def position(self) -> Position:
        """Of the settlement that it has installed; the number 0 for none."""
        series, number = self.disk.rows("SELECT series, position FROM terminal")[0]
        return series, number

    def copy(self, *, with_marks: bool = True) -> Copy:
        """Make one of its storage."""
        marks = self.marks if with_marks else b""
        return Copy(self.disk.image(), marks, frozenset(self.rides), self.position)

    def put_back(self, copy: Copy) -> None:
        """Start on a copy; what it alone had is lost."""
        self.disk.put_back(copy.image)
        self.marks = copy.marks or self.marks
        self.rides = set(copy.rides)
        self.start()

    def tap(self, card: CardId, amount_minor: int, at_ms: int) -> None:
        """Somebody rides."""
        context = Context(route="12", trip=self.name, clock_epoch=1)
        self.ledger.transact(card, lambda _view: ([Draft(Kind.FARE, amount_minor)], None), at_ms, context)
        self.rides.add(Ride(card, Kind.FARE, amount_minor, at_ms, context))

    def sync(self, *, retry: bool = True) -> Done:
        """One run against the hub; what stopped it."""
        self.exchanges, self.away = 0, False
        enrolment = self.terminal.enrolment
        assert enrolment is not None
        try:
            return LOOP.run(self._caller.call(enrolment, ADDRESS, retry=retry))
        except (EdgeError, InputRefused) as error:
            return error

    def pair(self, bus: str = "") -> Done:
        """A technician pairs it, under another name where one is given; what stopped that."""
        self.exchanges, self.away = 0, False
        self.bus = bus or self.bus
        way: Any = Way(cast(Any, None), "")
        with (
            mock.patch.object(edge_pairing, "open_http", lambda *_: nullcontext()),
            mock.patch.object(edge_pairing, "stranger_context", lambda _seen: None),
            mock.patch.object(enrolling, "Pairing", partial(_Pairing, self)),
            mock.patch.object(enrolling, "client_context", lambda identity: identity),
            mock.patch.object(
                enrolling, "ExchangeClient", lambda _fleet, _replica, identity, *_: Line(self, identity)
            ),
        ):
            book, entropy = AddressBook(None, None), self.world.entropy
            enroller = Enroller(self.terminal, book, self.bus, way, lambda _address: None, entropy)
            try:
                LOOP.run(enroller.pair(self.world.hub.invite(), ADDRESS))
            except (EdgeError, InputRefused) as error:
                return error
        return None

    async def _connected(self, identity: Identity) -> Line:
        return Line(self, identity)

    def _describe(self) -> Mapping[str, Any]:
        """As edge.report does it, as far as a hub reads it."""
        return {**self.ledger.status(), "former": [each.hex() for each in self.ledger.former(32)]}

    def _put_marks(self, data: bytes) -> None:
        self.marks = data


class Line:
    """The connection of a body with the hub, as an identity: as edge.exchange's Client."""

    def __init__(self, body: Body, identity: Identity | None) -> None:
        self._body, self._world = body, body.world
        self._identity = identity
        self._serial = ""
        if identity is not None:
            self._serial = serial_of(ssl.PEM_cert_to_DER_cert(identity.tls_certificate_pem))

    async def __aenter__(self) -> Line:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def exchange(self, _address: HubAddress, messages: Sequence[Message]) -> Answer:
        """POST SYNC."""
        assert self._identity is not None
        self._world.in_sync(self._body)
        session = Session(self._identity.fleet, self._identity.replica)
        body = b"".join(map(session.send, messages))
        fate = self._fate()
        received = await self._translated(self._world.hub.answer(self._serial, body))
        if fate == "late":
            self._world.late.append((self._serial, body))
        if fate:
            raise HubTooSlow("too slow")
        return Answer(*split([*session.receive_data(received), *session.receive_eof()]), None, 20)

    async def ask(self, _address: HubAddress | None, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """POST a JSON object."""
        fate = self._fate()
        given: dict[str, Any] = await self._translated(self._world.hub.ask(self._serial, path, request))
        if fate:
            raise HubTooSlow("too slow")
        if path in (RENEW, PAIR_FINISH):
            self._body.away = self._world.leaves
        return given

    async def revoked_list(self, _address: HubAddress) -> tuple[Message, ...]:
        """GET REVOKED_LIST."""
        if self._fate():
            raise HubTooSlow("too slow")
        return tuple(self._world.hub.listed())

    def _fate(self) -> str:
        fate = self._world.fate()
        if fate == "lost" or self._body.away:
            raise HubUnreachable("no hub answers")
        return fate

    async def _translated(self, answer: Any) -> Any:
        try:
            return await answer
        except RequestRefused as error:
            raise HubRefused(str(error), error.code) from error
        except InputRefused as error:
            raise HubRefused(str(error), error.code.name.lower()) from error


class _Pairing(edge_pairing.Pairing):
    """Over a line of a body, without HTTP and with the code in plain text."""

    def __init__(self, body: Body, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._line, self._hub_key = Line(body, None), body.world.hub.spki_sha256

    async def _knock(self, http: object) -> None:
        self._seen(self._hub_key)

    async def _post(self, http: object, path: str, body: Mapping[str, str]) -> Mapping[str, object]:
        return await self._line.ask(None, path, body)


class NoSpake:
    """Both sides of SPAKE2 as far as they are asked for, without the arithmetic."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def start(self) -> bytes:
        """The message."""
        return b"message"

    def finish(self, _message: bytes) -> bytes:
        """The key."""
        return b"key"
