"""Who tries to get into the ledgers what does not belong there. None of it may change anything.

All of it comes over a terminal of the fleet that is known to the hub: the worst place for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from crdt.block import Block, Header, seal
from crdt.certificate import AuthorCertificate, Role
from crdt.facts import NO_CONTEXT, CardId, Delta, Kind, TerminalId
from crdt.frames import BlockFrame, CertificateFrame, Hello, Message
from crdt.frontier import GENESIS
from crdt.session import Session
from tests.simulation.adoptions import facts_in
from tests.simulation.authors import ABROAD, HOME, Author, author
from tests.simulation.oracle import expect

if TYPE_CHECKING:
    from tests.simulation.buses import Bus
    from tests.simulation.world import World

ATTEMPTS: Final = 5  # at a time
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
        carriers = [bus for bus in world.present() if bus.number not in world.network.partitioned]
        if not carriers:
            return "nobody to carry"
        carrier = world.random.choice(carriers)
        if not self._chain:
            self._send(carrier, [Intruder._behave])  # it has a past to contradict
        attempts: list[Callable[[Intruder], Attempt]] = world.random.sample(_ATTEMPTS, ATTEMPTS)
        cut_off = world.hub.cut_offs.get(ROGUE.replica)
        if cut_off is not None:
            # Nothing beside it: of two blocks that lie in quarantine, either might be accepted later.
            beside = (Intruder._fork, Intruder._wrong_previous)
            other = [attempt for attempt in attempts if attempt not in beside][:1]
            attempts = [*other, Intruder._go_on]
        elif world.oracle.hub.reach.get(ROGUE.replica, 0) < self._next_seq() - 1:
            attempts = [Intruder._repeat]  # a restored hub gets back what it lost
        elif world.random.random() < 0.2:
            attempts = [Intruder._behave]
        self._send(carrier, attempts)
        return " ".join(attempt.__name__.strip("_") for attempt in attempts)

    def sell(self, times: int) -> None:
        """Behave, so many times, over any terminal's connection."""
        for _ in range(times):
            self._send(self._world.random.choice(self._world.present()), [Intruder._behave])

    def fork(self) -> bytes:
        """Go on in two ways, the first of which counts; the hash of the other's block."""
        self.sell(1)
        self._other = self._beside(self._chain[-1].header)
        self._send(self._world.random.choice(self._world.present()), [Intruder._bring_other])
        return self._other.hash

    def turn(self) -> None:
        """Send the other way to a hub that has lost both; then the first."""
        oracle, first = self._world.oracle, self._chain.pop()
        del oracle.named[ROGUE.replica, first.last_seq]
        oracle.facts[ROGUE.replica].pop()
        self._append(self._other)
        self._other = first
        for bring in (Intruder._repeat, Intruder._bring_other):
            self._send(self._world.random.choice(self._world.present()), [bring])

    def _send(self, carrier: Bus, attempts: list[Callable[[Intruder], Attempt]]) -> None:
        """Over this terminal's connection."""
        world = self._world
        made = [attempt(self) for attempt in attempts]
        blocks = [raw for raws, _ in made for raw in raws]
        certificates = {one.encode(): one for _, ones in made for one in ones}.values()
        before = world.hub.disk.rows("SELECT position FROM hub")
        session = Session(HOME.id, carrier.replica)
        messages: list[Message] = [Hello(HOME.id, carrier.replica, {})]
        messages += [CertificateFrame(one.encode()) for one in certificates]
        messages += [BlockFrame(raw) for raw in blocks]
        world.hub.answer(carrier.replica, b"".join(map(session.send, messages)))
        if len(attempts) > 1:
            names = [attempt.__name__ for attempt in attempts]
            expect(world.hub.disk.rows("SELECT position FROM hub") == before, f"the hub took one of {names}")
            expect(len(world.hub.refusals) >= len(attempts), f"the hub did not refuse one of {names}")

    def _behave(self) -> Attempt:
        """An honest fact; all blocks, so that a restored hub gets them back."""
        self._append(self._sealed(self._delta(self._next_seq())))
        return self._repeat()

    def _append(self, block: Block) -> None:
        self._world.oracle.begin(ROGUE.replica, facts_in(block.raw))
        self._world.oracle.acknowledge(ROGUE.replica)
        self._chain.append(block)

    def _go_on(self) -> Attempt:
        """More of the same, after it was revoked."""
        self._behave()
        return [self._chain[-1].raw], [ROGUE.certificate]

    def _repeat(self) -> Attempt:
        """All it ever wrote."""
        return [block.raw for block in self._chain], [ROGUE.certificate]

    def _fork(self) -> Attempt:
        """Two different blocks for one number."""
        return [*self._repeat()[0], self._beside(self._chain[-1].header).raw], [ROGUE.certificate]

    def _beside(self, header: Header) -> Block:
        """Something else of the same number."""
        return self._sealed(self._delta(header.first_seq, 1), header.previous)

    def _bring_other(self) -> Attempt:
        """The block beside the last one."""
        return [self._other.raw], [ROGUE.certificate]

    def _gap(self) -> Attempt:
        """A block whose predecessor nobody has."""
        return [self._sealed(self._delta(self._next_seq() + 2), HASH).raw], [ROGUE.certificate]

    def _wrong_previous(self) -> Attempt:
        """The next numbers, after another past."""
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

    def _self_made(self) -> Attempt:
        """A certificate that says this fleet, and that another root signed."""
        key = author(903).key
        limits = ROGUE.certificate.limits
        unsigned = AuthorCertificate(
            HOME.id, TerminalId(b"x" * 16), "x", Role.TERMINAL, key.public_key, limits
        )
        delta = Delta(key.replica, 1, self._card(), Kind.FARE, -1, 0)
        made = replace(unsigned, signature=FOREIGNER.certificate.signature)
        return [seal(key, HOME.id, [delta], GENESIS).raw], [made]

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
    Intruder._fork,
    Intruder._fork,
    Intruder._gap,
    Intruder._wrong_previous,
    Intruder._mint,
    Intruder._overspend,
    Intruder._forge,
    Intruder._foreigner,
    Intruder._immigrant,
    Intruder._self_made,
    Intruder._stranger,
)
