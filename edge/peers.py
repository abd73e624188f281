"""Keeps the terminal in touch with other terminals, in the event loop, never in a tap's way.

Terminals of the same vehicle are companions: each tap is told to them at once, so that every door knows the
others' taps within a second. Other terminals of the fleet, met in the depot, are visited one at a time at an
easy pace, so that blocks find their way to a hub by any bus.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from crdt.errors import LedgerError
from crdt.facts import ReplicaId
from crdt.frames import Message
from edge.addresses import HubAddress
from edge.backoff import Backoff
from edge.errors import EdgeError, Superseded
from edge.exchange import Answer, ExchangeClient, peer
from edge.https import Limits
from edge.peer_announce import PeerRecord
from edge.peer_answering import PeerAnswer
from edge.peer_sync import PeerSync
from edge.presence import Presence, Presences
from edge.terminal import Terminal

LIMITS = Limits(total_s=20.0, read_s=10.0)
"""Of an exchange; a LAN that needs longer is none."""
BEAT_S = 10.0
"""Longest silence towards a companion; then sealed blocks are compared too."""
RETRY_MIN_S, RETRY_MAX_S = 0.2, 10.0
"""Waits after a companion has failed to answer."""
MAX_COMPANIONS = 8
"""More than one vehicle has other doors."""
LOOK_S = 1.0
"""How often identity and open taps are looked at."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pacing:
    """How the terminal deals with peers. Times in seconds."""

    vehicle: str
    """Which vehicle this terminal is on, unless its document says another; "" is none, and then nobody is a
    companion."""
    seal_after_s: float
    """How long open taps wait for more before they are sealed, once a companion listens."""
    visit_every_s: float
    """Between two visits to other buses' terminals."""


@dataclass(slots=True)
class PeerStatus:
    """How it stands with one peer. `at_s`: elapsed time of the last exchange that went well."""

    record: PeerRecord
    companion: bool
    address: HubAddress | None = None
    online: bool = False
    at_s: float | None = None
    trouble: str = "not met yet"
    brought: int = 0
    """Blocks it has brought here."""
    tries: int = 0
    """How often it has failed to answer since it last did."""

    def next_address(self) -> HubAddress:
        """Where it answered last, and after failures each address in turn."""
        addresses = self.record.addresses
        known = addresses if self.address is None else (self.address, *addresses)
        return known[self.tries % len(known)]


class Peers:
    """The loop. `tapped` is for any thread, the rest for the event loop's."""

    def __init__(
        self,
        terminal: Terminal,
        presences: Presences,
        pacing: Pacing,
        uniform: Callable[[], float],
        *,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`uniform` draws from 0 to 1, so that buses which start together do not visit together."""
        self._terminal = terminal
        self._presences = presences
        self._pacing = pacing
        self._uniform = uniform
        self._elapsed_s = elapsed_s
        self._loop = asyncio.get_running_loop()
        self._known: dict[ReplicaId, PeerStatus] = {}
        self._companions: dict[ReplicaId, asyncio.Event] = {}
        self._behind: set[ReplicaId] = set()
        self._news = asyncio.Event()
        self._open_since_s: float | None = None

    def status(self) -> list[PeerStatus]:
        """Everybody who is announced or accompanied, companions first."""
        return sorted(self._known.values(), key=lambda one: (not one.companion, one.record.replica))

    @property
    def accompanied(self) -> set[ReplicaId]:
        """Who is told of each tap."""
        return set(self._companions)

    def tapped(self) -> None:
        """A tap is durable. From any thread; does nothing that could wait."""
        with suppress(RuntimeError):  # the loop is closed: the terminal is going down, the tap is on disk
            self._loop.call_soon_threadsafe(self._stir)

    def heard(self, records: Iterable[PeerRecord]) -> None:
        """The LAN announces these now. A companion that answered stays known without its record."""
        announced = {record.replica: record for record in records}
        vehicle = self._terminal.text("vehicle", self._pacing.vehicle)
        for replica, status in list(self._known.items()):
            if replica not in announced and not (status.companion and status.online):
                del self._known[replica]
        for replica, record in announced.items():
            companion = bool(record.vehicle) and record.vehicle == vehicle
            status = self._known.setdefault(replica, PeerStatus(record, companion))
            status.record, status.companion = record, companion
        self._news.set()

    def asked(self, replica: ReplicaId, answer: PeerAnswer) -> None:
        """A peer was answered. One that has blocks we lack is asked for them."""
        if answer.behind and replica in self._companions:
            self._behind.add(replica)
            self._companions[replica].set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look())
            tasks.create_task(self._visit())
            while True:
                await self._news.wait()
                self._news.clear()
                for replica, status in self._known.items():
                    free = len(self._companions) < MAX_COMPANIONS
                    if status.companion and replica not in self._companions and free:
                        self._companions[replica] = asyncio.Event()
                        tasks.create_task(self._accompany(replica))

    def _stir(self) -> None:
        for event in self._companions.values():
            event.set()

    async def _look(self) -> None:
        """Follow the identity, and seal what has been open for long while a companion listens."""
        while True:
            try:
                await asyncio.to_thread(self._presences.refresh)
                await self._seal_in_time()
            except (EdgeError, LedgerError) as error:
                log.warning("peers: %s", error)
            await asyncio.sleep(min(LOOK_S, self._pacing.seal_after_s))

    async def _seal_in_time(self) -> None:
        presence = self._presences.now
        listened_to = any(status.companion and status.online for status in self._known.values())
        if presence is None or not listened_to or not presence.ledger.status()["open"]:
            self._open_since_s = None
            return
        if self._open_since_s is None:
            self._open_since_s = self._elapsed_s()
        elif self._elapsed_s() - self._open_since_s >= self._pacing.seal_after_s:
            self._open_since_s = None
            await asyncio.to_thread(self._seal, presence)
            self._stir()

    def _seal(self, presence: Presence) -> None:
        with self._terminal.syncing(presence.identity):
            presence.ledger.seal()

    async def _accompany(self, replica: ReplicaId) -> None:
        """Talk to a companion until it is none, or nobody announces it any more and it does not answer."""
        due, backoff = self._companions[replica], Backoff(RETRY_MIN_S, RETRY_MAX_S, self._uniform)
        try:
            while self._is_companion(replica):
                due.clear()
                presence = self._presences.now
                if presence is not None and await self._talk(presence, replica, due):
                    backoff.reset()
                await _wait(due, backoff.next_s())
        finally:
            del self._companions[replica]
            self._news.set()

    async def _talk(self, presence: Presence, replica: ReplicaId, due: asyncio.Event) -> bool:
        """Over one connection, until it fails; whether anything went well."""
        well, compare = False, True
        async with self._client(presence, replica) as client:
            while self._presences.now is presence and self._is_companion(replica):
                due.clear()
                self._behind.discard(replica)
                lacking = await self._exchange(presence, self._known[replica], client, compare=compare)
                if lacking is None:
                    break
                well = True
                compare = lacking or not await _wait(due, BEAT_S) or replica in self._behind
        return well

    def _is_companion(self, replica: ReplicaId) -> bool:
        status = self._known.get(replica)
        return status is not None and status.companion

    async def _visit(self) -> None:
        """Compare blocks with one other terminal after another, in no order."""
        while True:
            await asyncio.sleep(self._pacing.visit_every_s * (0.5 + self._uniform()))
            presence = self._presences.now
            others = [
                status for status in self._known.values() if status.record.replica not in self._companions
            ]
            if presence is None or not others:
                continue
            status = others[int(self._uniform() * len(others)) % len(others)]
            async with self._client(presence, status.record.replica) as client:
                await self._exchange(presence, status, client, compare=True)

    async def _exchange(
        self, presence: Presence, status: PeerStatus, client: ExchangeClient, *, compare: bool
    ) -> bool | None:
        """One run; whether sealed blocks are still missing on a side, None when it failed."""
        address = status.next_address()

        async def exchange(messages: Sequence[Message]) -> Answer:
            return await client.exchange(address, messages)

        run = PeerSync(self._terminal, presence, status.record.replica, exchange)
        try:
            lacking = await run.run() if compare else await run.tell()
        except Superseded:
            return None
        except (EdgeError, LedgerError) as error:
            self._failed(status, str(error))
            return None
        except Exception:
            # Taps must not stop for a bug out here, whatever provoked it.
            log.exception("an exchange with a peer failed: this is a bug, please report it")
            self._failed(status, "it failed by a bug; the log has the details")
            return None
        finally:
            status.brought += run.brought
        self._went_well(status, address)
        return lacking

    def _failed(self, status: PeerStatus, trouble: str) -> None:
        if status.online or status.trouble != trouble:
            log.info("peer %s: %s", status.record.replica.hex(), trouble)
        status.online, status.trouble, status.tries = False, trouble, status.tries + 1

    def _went_well(self, status: PeerStatus, address: HubAddress) -> None:
        if not status.online:
            log.info("peer %s answers at %s", status.record.replica.hex(), address)
        status.online, status.trouble, status.address = True, "", address
        status.at_s, status.tries = self._elapsed_s(), 0

    def _client(self, presence: Presence, replica: ReplicaId) -> ExchangeClient:
        identity = presence.identity
        return ExchangeClient(
            identity.fleet, identity.replica, presence.asking, LIMITS, other_side=peer(replica)
        )


async def _wait(due: asyncio.Event, timeout_s: float) -> bool:
    """Whether the event was set within the time."""
    try:
        await asyncio.wait_for(due.wait(), timeout_s)
    except TimeoutError:
        return False
    return True
