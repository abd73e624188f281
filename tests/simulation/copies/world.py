"""One seed's world of copies: a hub, the copies of one terminal's storage, other terminals, chance."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from random import Random
from typing import Any, Final

from crdt.errors import InputRefused, LedgerError
from crdt.facts import CardId
from crdt.session import Session
from crdt.tlsnames import TlsIdentity
from edge.errors import EdgeError, HubRefused
from edge.exchange import Answer, split
from edge.peer_answering import PeerAnswerer, PeerHeard
from edge.peer_sync import PeerSync
from tests.simulation.copies.body import MAX_EXCHANGES, Body, Copy, Done
from tests.simulation.copies.hub import LOOP, Backup, Hub, Position
from tests.simulation.copies.rides import label
from tests.simulation.oracle import expect

START_MS: Final = 1_790_000_000_000
CARDS: Final = tuple(CardId(bytes([4, 1, 2, 3, 4, 5, number])) for number in range(3))
PAGE_ROWS: Final = (1, 2, 500, 500)


class World:
    """Where copies live. `look` is asked whenever a view may have changed."""

    def __init__(self, seed: int, look: Callable[[Body], None]) -> None:
        self.random = Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.seed, self.now_ms = seed, START_MS
        self.trace: list[tuple[object, ...]] = [("begin",)]
        self.faults = 0.0  # how often an exchange with the hub goes wrong, of 1
        self.careful = False  # see `pair`, and the hub is not put back
        self.leaves = False  # whether who is promised an identity goes out of reach with that
        self.late: list[tuple[str, bytes]] = []  # requests that the terminal has given up
        self.backups: list[Backup] = []
        self.kept: Copy | None = None  # that somebody has in a drawer
        self.stale: set[Position] = set()  # settlements that the hub has forgotten
        self._look, self._drawn = look, 0
        self.hub = Hub(seed, self.random.choice(PAGE_ROWS), lambda: self.now_ms)
        self.copies = [Body(self, "A1", "bus 12")]
        self.others = [Body(self, "T1", "bus 13")]
        for body in self.bodies:
            expect(body.pair() is None, "a new terminal is not paired")

    @property
    def bodies(self) -> list[Body]:
        """All that are alive."""
        return [*self.copies, *self.others]

    def note(self, *what: object) -> None:
        """Add to the last line of the trace."""
        self.trace[-1] += what

    def entropy(self, length: int) -> bytes:
        """What terminals draw by chance."""
        self._drawn += 1
        return sha256(b"world %d %d" % (self.seed, self._drawn)).digest()[:length]

    def fate(self) -> str:
        """What becomes of an exchange; "" when nothing goes wrong."""
        if not self.faults or self.random.random() >= self.faults:
            return ""
        return self.random.choice(("lost", "unanswered", "unanswered", "late"))

    def tap(self, body: Body) -> None:
        """Somebody rides, at a time that is nobody else's."""
        self.now_ms += 1_000
        body.tap(self.random.choice(CARDS), -self.random.randrange(1, 1 << 30), self.now_ms)

    def copy(self, body: Body, *, with_marks: bool = True) -> Body:
        """Another body starts on a copy of this one's storage."""
        copy, name = body.copy(with_marks=with_marks), f"A{len(self.copies) + 1}"
        self.copies.append(Body(self, name, body.bus, copy))
        self.note(body.name, "->", name)
        return self.copies[-1]

    def sync(self, body: Body, *, retry: bool = True, leaves: bool = False) -> Done:
        """One run against the hub; what came of it. `leaves`: see `self.leaves`."""
        self.leaves = leaves
        came = body.sync(retry=retry)
        self.leaves = False
        self.note(body.name, _short(came))
        return came

    def pair(self, body: Body, bus: str = "", *, leaves: bool = False) -> Done:
        """A technician pairs a body; what stopped that. `leaves`: see `self.leaves`.

        A careful one knows that it is a copy, which seals nothing any more, and gives it a name of its own.
        """
        self.leaves = leaves
        if self.careful and body in self.copies:
            body.ledger.suspend()
            bus = f"bus {body.name}"
        came = body.pair(bus)
        self.leaves = False
        self.note(body.name, bus, _short(came))
        return came

    def meet(self, a: Body, b: Body, *, tell: bool = False) -> None:
        """Two terminals meet without a hub: their open taps, or all that they have."""
        self.note(a.name, b.name)
        if a.identity.replica == b.identity.replica:
            return

        async def exchange(messages: Any) -> Answer:
            mine = Session(a.identity.fleet, a.identity.replica)
            body = b"".join(map(mine.send, messages))
            session = Session(b.identity.fleet, b.identity.replica)
            heard = PeerHeard(TlsIdentity(a.identity.certificate.terminal, a.identity.replica))
            for event in [*session.receive_data(body), *session.receive_eof()]:
                heard.take(event)
            presence = b.presence
            try:
                answerer = PeerAnswerer(presence.identity, presence.ledger, presence.acquaintances)
                answer = answerer.answer(heard)
            except InputRefused as error:
                raise HubRefused(str(error), error.code.name.lower()) from error
            said = b"".join(map(session.send, answer.messages))
            self._look(b)
            return Answer(*split([*mine.receive_data(said), *mine.receive_eof()]), None, 10)

        run: PeerSync = PeerSync(a.terminal, a.presence, b.identity.replica, exchange)
        try:
            LOOP.run(run.tell() if tell else run.run())
        except (EdgeError, LedgerError) as error:
            self.note(_short(error))

    def in_sync(self, body: Body) -> None:
        """A body is about to say something to the hub: passengers tap meanwhile, so its view is right."""
        body.exchanges += 1
        expect(body.exchanges <= MAX_EXCHANGES, f"{body.name} syncs without end")
        self._look(body)

    def arrive_late(self, index: int) -> None:
        """A request that its terminal has given up comes to the hub after all."""
        try:
            LOOP.run(self.hub.answer(*self.late.pop(index)))
        except InputRefused as error:
            self.note(_short(error))

    def put_hub_back(self, index: int, *, whole: bool) -> None:
        """To one of its backups. Of a settlement since then nobody can say what it includes."""
        self.stale.update(body.position for body in self.bodies)
        if self.kept is not None:
            self.stale.add(self.kept.position)
        self.hub.put_back(self.backups[index], whole=whole)
        if whole:
            self.backups = self.backups[: index + 1]

    def adopt(self, hashes: list[bytes]) -> None:
        """An operator lets the hub book what these blocks say."""
        self.note(len(hashes))
        self.hub.adopt(hashes)

    def close(self) -> None:
        """Give the disks back."""
        for disk in (self.hub.disk, *(body.disk for body in self.bodies)):
            disk.give_back()

    def digest(self) -> str:
        """A hash of everything that happened."""
        counts = sorted((label(ride), times) for ride, times in self.hub.count().items())
        return sha256(repr((self.trace, sorted(self.hub.history), counts)).encode()).hexdigest()


def _short(came: Done | LedgerError) -> str:
    return f"{type(came).__name__}: {came}"[:150] if isinstance(came, Exception) else str(came)
