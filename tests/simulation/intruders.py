"""Who tries to get into the ledgers what does not belong there. None of it may change anything.

All of it comes over a terminal of the fleet that is known to the hub: the worst place for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from crdt.block import Block, seal
from crdt.certificate import AuthorCertificate
from crdt.facts import NO_CONTEXT, CardId, Delta, Kind
from crdt.frames import BlockFrame, CertificateFrame, Hello, Message
from crdt.frontier import GENESIS
from crdt.session import Session
from tests.simulation.authors import ABROAD, HOME, Author, author
from tests.simulation.oracle import Fact, expect

if TYPE_CHECKING:
    from tests.simulation.world import World

ROGUE: Final = author(900)
FOREIGNER: Final = author(901, home=ABROAD)
HASH: Final = bytes(range(32))


Attempt = tuple[list[bytes], list[AuthorCertificate]]  # blocks and certificates to send


class Intruder:
    """Has the key of one enrolled terminal, ROGUE, that behaves at times; and one of another fleet."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chain: list[Block] = []
        world.oracle.begin(ROGUE.replica, [])
        world.oracle.acknowledge(ROGUE.replica)

    def act(self) -> str:
        """Send something through some terminal's connection; what."""
        world = self._world
        carriers = [bus for bus in world.present() if bus.replica not in world.network.partitioned]
        if not carriers:
            return "nobody to carry"
        attempt = world.random.choice(_ATTEMPTS)
        if world.oracle.hub.reach.get(ROGUE.replica, 0) < self._next_seq() - 1:
            attempt = Intruder._repeat  # a restored hub gets back what it lost
        blocks, certificates = attempt(self)
        carrier = world.random.choice(carriers)
        before = world.hub.disk.rows("SELECT position FROM hub")
        session = Session(HOME.id, carrier.replica)
        messages: list[Message] = [Hello(HOME.id, carrier.replica, {})]
        messages += [CertificateFrame(one.encode()) for one in certificates]
        messages += [BlockFrame(raw) for raw in blocks]
        world.hub.answer(carrier.replica, b"".join(map(session.send, messages)))
        if attempt not in (Intruder._behave, Intruder._repeat):
            expect(
                world.hub.disk.rows("SELECT position FROM hub") == before, f"the hub took {attempt.__name__}"
            )
            expect(bool(world.hub.refusals), f"the hub did not refuse {attempt.__name__}")
        return attempt.__name__.strip("_")

    def _behave(self) -> Attempt:
        """An honest fact; all blocks, so that a restored hub gets them back."""
        delta = self._delta(self._next_seq())
        fact = Fact(delta.card, delta.kind, delta.amount_minor, delta.at_ms, NO_CONTEXT)
        self._world.oracle.begin(ROGUE.replica, [fact])
        self._world.oracle.acknowledge(ROGUE.replica)
        self._chain.append(self._sealed(delta))
        return self._repeat()

    def _repeat(self) -> Attempt:
        """All it ever wrote."""
        return [block.raw for block in self._chain], [ROGUE.certificate]

    def _fork(self) -> Attempt:
        """Two different blocks for one number."""
        if not self._chain:
            return self._gap()
        first = self._chain[-1].header
        other = self._sealed(self._delta(first.first_seq, 1), first.previous)
        return [*self._repeat()[0], other.raw], [ROGUE.certificate]

    def _gap(self) -> Attempt:
        """A block whose predecessor nobody has."""
        return [self._sealed(self._delta(self._next_seq() + 2), HASH).raw], [ROGUE.certificate]

    def _wrong_previous(self) -> Attempt:
        """The next numbers, after another past."""
        if not self._chain:
            return self._gap()
        return [self._sealed(self._delta(self._next_seq()), HASH).raw], [ROGUE.certificate]

    def _mint(self) -> Attempt:
        """A top-up, which a terminal may not write."""
        return [self._sealed(self._delta(self._next_seq(), kind=Kind.TOPUP)).raw], [ROGUE.certificate]

    def _overspend(self) -> Attempt:
        """A fare beyond what a terminal may take."""
        return [self._sealed(self._delta(self._next_seq(), 5_000)).raw], [ROGUE.certificate]

    def _forge(self) -> Attempt:
        """A good block with another signature."""
        raw = bytearray(self._sealed(self._delta(self._next_seq())).raw)
        raw[-1] ^= 1
        return [bytes(raw)], [ROGUE.certificate]

    def _foreigner(self) -> Attempt:
        """A terminal of another fleet, with its own papers in order."""
        delta = Delta(FOREIGNER.replica, 1, self._card(), Kind.FARE, -1, 0)
        return [seal(FOREIGNER.key, ABROAD.id, [delta], GENESIS).raw], [FOREIGNER.certificate]

    def _immigrant(self) -> Attempt:
        """A terminal of another fleet that writes into this one."""
        delta = Delta(FOREIGNER.replica, 1, self._card(), Kind.FARE, -1, 0)
        return [seal(FOREIGNER.key, HOME.id, [delta], GENESIS).raw], [FOREIGNER.certificate]

    def _stranger(self) -> Attempt:
        """A key that nobody ever certified."""
        stranger: Author = author(902)
        delta = Delta(stranger.replica, 1, self._card(), Kind.FARE, -1, 0)
        return [seal(stranger.key, HOME.id, [delta], GENESIS).raw], []

    def _card(self) -> CardId:
        return self._world.card()

    def _next_seq(self) -> int:
        return self._chain[-1].last_seq + 1 if self._chain else 1

    def _delta(self, seq: int, minor: int = 0, kind: Kind = Kind.FARE) -> Delta:
        amount = 50_000 if kind is Kind.TOPUP else -(minor or 10 * (seq % 7))
        return Delta(ROGUE.replica, seq, self._card(), kind, amount, self._world.now_ms, NO_CONTEXT)

    def _sealed(self, delta: Delta, previous: bytes | None = None) -> Block:
        if previous is None:
            previous = self._chain[-1].hash if self._chain else GENESIS
        return seal(ROGUE.key, HOME.id, [delta], previous)


_ATTEMPTS: Final[tuple[Callable[[Intruder], Attempt], ...]] = (
    Intruder._behave,
    Intruder._behave,
    Intruder._fork,
    Intruder._gap,
    Intruder._wrong_previous,
    Intruder._mint,
    Intruder._overspend,
    Intruder._forge,
    Intruder._foreigner,
    Intruder._immigrant,
    Intruder._stranger,
)
