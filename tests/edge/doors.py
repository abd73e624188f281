"""Doors of a bus: real terminals with real ledgers that answer each other over real TLS on loopback."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crdt.documents import SignedDocument
from crdt.facts import CardId, CardView, Draft, Kind, ReplicaId
from crdt.frames import Message
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store.database import Database
from crdt.store.terminal import TerminalLedger
from edge.addresses import HubAddress
from edge.exchange import Answer, ExchangeClient, peer
from edge.https import Limits
from edge.identity import Identity
from edge.pace import Pace
from edge.peer_answering import PeerAnswer
from edge.peer_server import PeerServer, listen
from edge.peer_site import PeerLimits
from edge.peer_sync import PeerSync
from edge.presence import Presence, Presences
from edge.terminal import Terminal
from tests.edge.authority import Fleet
from tests.edge.conftest import KEY, pair

LIMITS = Limits(total_s=20, read_s=20)
AT_MS = 1_780_000_000_000


@dataclass
class Door:
    """One terminal and what makes it a peer."""

    terminal: Terminal
    presences: Presences

    @classmethod
    def of(cls, terminal: Terminal) -> "Door":
        presences = Presences(terminal)
        presences.refresh()
        return cls(terminal, presences)

    @property
    def presence(self) -> Presence:
        assert self.presences.now is not None
        return self.presences.now

    @property
    def identity(self) -> Identity:
        return self.presence.identity

    @property
    def replica(self) -> ReplicaId:
        return self.identity.replica

    @property
    def ledger(self) -> TerminalLedger:
        return self.presence.ledger

    def ride(self, card: CardId, fare_minor: int = 250, at_ms: int = AT_MS) -> None:
        """A tap as the ledger sees it; blocks, as taps do."""

        def choose(view: CardView) -> tuple[tuple[Draft, ...], None]:
            opening = () if view.known else (Draft(Kind.OPENING, 1_000),)
            return (*opening, Draft(Kind.FARE, -fare_minor)), None

        self.ledger.transact(card, choose, at_ms)

    def balance(self, card: CardId) -> int:
        return self.ledger.view(card).balance_minor

    @contextlib.asynccontextmanager
    async def answering(
        self,
        limits: PeerLimits | None = None,
        pace: Pace | None = None,
        heard: list[PeerAnswer] | None = None,
    ) -> AsyncIterator[HubAddress]:
        """Answer peers on loopback until the block ends."""

        def note(_replica: ReplicaId, answer: PeerAnswer) -> None:
            if heard is not None:
                heard.append(answer)

        pace = pace or Pace(10_000, 10_000, time.monotonic)
        server = PeerServer(self.terminal, self.presences, note, str, pace, limits or PeerLimits())
        with contextlib.closing(listen(0)) as listener:
            async with server.serving(listener):
                yield HubAddress("127.0.0.1", listener.getsockname()[1])

    @contextlib.asynccontextmanager
    async def asking(self, other: ReplicaId, address: HubAddress) -> AsyncIterator[PeerSync]:
        """Exchanges with another door."""
        presence = self.presence
        client = ExchangeClient(
            self.identity.fleet, self.replica, presence.asking, LIMITS, other_side=peer(other)
        )
        async with client:

            async def exchange(messages: Sequence[Message]) -> Answer:
                return await client.exchange(address, messages)

            yield PeerSync(self.terminal, presence, other, exchange)


@contextlib.contextmanager
def doors(directory: Path, fleet: Fleet, count: int = 2) -> Iterator[list[Door]]:
    """So many paired terminals, each with a database of its own."""
    with contextlib.ExitStack() as open_databases:
        found = []
        for number in range(count):
            database = Database.open(directory / f"door{number}.db", KEY)
            open_databases.enter_context(database)
            terminal = Terminal(database)
            pair(terminal, fleet)
            found.append(Door.of(terminal))
        yield found


async def compared(one: Door, other: Door) -> None:
    """One full run of `one` with `other`."""
    async with other.answering() as address, one.asking(other.replica, address) as sync:
        await sync.run()


async def digests(*every: Door) -> set[bytes]:
    return {await asyncio.to_thread(door.ledger.digest) for door in every}


def revoked(fleet: Fleet, cut_offs: dict[ReplicaId, int], version: int = 1) -> SignedDocument:
    """The hub's list of revoked replicas."""
    body = Revocations(cut_offs).encode()
    return SignedDocument.seal(fleet.hub_key, fleet.id, REVOKED_DOCUMENT, version, body)
