"""Keeps the terminal in touch with other terminals, in the event loop, never in a tap's way.

Terminals of the same vehicle are companions: each tap is told to them at once, so that every door knows the
others' taps within a second. Other terminals of the fleet, met in the depot, are visited one at a time at an
easy pace, so that blocks find their way to a hub by any bus. Whose turn it is the table says; a connection is
kept only with who has answered.
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
from edge.errors import EdgeError, Superseded
from edge.exchange import Answer, ExchangeClient, peer
from edge.https import Limits
from edge.peer_announce import PeerRecord
from edge.peer_answering import PeerAnswer
from edge.peer_sync import PeerSync
from edge.peer_table import PeerStatus, PeerTable
from edge.presence import Presence, Presences
from edge.terminal import Terminal
from edge.waiting import happens

LIMITS = Limits(total_s=20.0, read_s=10.0, connect_s=3.0)
"""Of an exchange; a LAN that needs longer is none. Nobody but the peer itself gets beyond the handshake, so
that is all the time that one who only says to be it can take."""
BEAT_S = 10.0
"""Longest silence towards a companion; then sealed blocks are compared too."""
MAX_COMPANIONS = 8
"""More than one vehicle has other doors."""
MAX_TRIED = 4
"""Members, and again strangers, that are tried at a time: no connection of theirs is another's."""
REST_S = 0.2
"""After an attempt, before its place is the next one's: no flood of records makes more attempts than that."""
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
        self._table = PeerTable(uniform)
        self._talking: dict[ReplicaId, asyncio.Event] = {}
        self._behind: set[ReplicaId] = set()
        self._news = asyncio.Event()
        self._open_since_s: float | None = None

    def status(self) -> list[PeerStatus]:
        """Everybody who is announced or accompanied, companions first."""
        return sorted(self._table, key=lambda one: (not one.companion, one.replica))

    @property
    def accompanied(self) -> set[ReplicaId]:
        """Who is told of each tap."""
        return {one.replica for one in self._table if one.companion and one.online}

    def vehicle(self) -> str:
        """Which vehicle this terminal is on; "" is none."""
        return self._terminal.text("vehicle", self._pacing.vehicle)

    def tapped(self) -> None:
        """A tap is durable. From any thread; does nothing that could wait."""
        with suppress(RuntimeError):  # the loop is closed: the terminal is going down, the tap is on disk
            self._loop.call_soon_threadsafe(self._stir)

    def heard(self, records: Iterable[PeerRecord]) -> None:
        """The LAN announces these now. A companion that is said to be elsewhere is asked itself."""
        vehicle = self.vehicle()
        self._table.heard(records, vehicle, self._elapsed_s())
        for one in self._table:
            if one.companion and one.record.vehicle != vehicle and one.replica in self._talking:
                self._talking[one.replica].set()
        self._news.set()

    def asked(self, replica: ReplicaId, answer: PeerAnswer) -> None:
        """A peer was answered: it is a member. One that has blocks we lack is asked for them."""
        status = self._table.get(replica)
        if status is None:
            return
        status.member = True
        self._table.hurry(self._elapsed_s())
        self._news.set()
        if answer.behind and status.companion:
            status.not_before_s = self._elapsed_s()
            self._behind.add(replica)
            self._talking.get(replica, self._news).set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look())
            tasks.create_task(self._visit())
            while True:
                self._news.clear()
                for member in (True, False):
                    self._begin(tasks, member=member)
                due_s = self._table.due_s(self._talking)
                pause_s = LOOK_S if due_s is None else max(REST_S, due_s - self._elapsed_s())
                await happens(self._news, pause_s)

    def _begin(self, tasks: asyncio.TaskGroup, *, member: bool) -> None:
        """Try those companions whose turn it is, as many at a time as may be."""
        talking = [one for one in self._table if one.replica in self._talking]
        tried = sum(one.member == member and not one.online for one in talking)
        if len(self.accompanied) >= MAX_COMPANIONS:
            return
        for _ in range(MAX_TRIED - tried):
            status = self._table.turn(self._elapsed_s(), self._talking, member=member, companions=True)
            if status is None:
                return
            self._talking[status.replica] = asyncio.Event()
            tasks.create_task(self._accompany(status))

    def _stir(self) -> None:
        for event in self._talking.values():
            event.set()
        self._table.hurry(self._elapsed_s())
        self._news.set()

    async def _look(self) -> None:
        """Follow the identity, and seal what has been open for long while a companion listens."""
        while True:
            try:
                await asyncio.to_thread(self._presences.refresh)
                self._recognise()
                await self._seal_in_time()
            except (EdgeError, LedgerError) as error:
                log.warning("peers: %s", error)
            await asyncio.sleep(min(LOOK_S, self._pacing.seal_after_s))

    def _recognise(self) -> None:
        """Tell members from strangers, by the certificates that the ledger holds."""
        presence = self._presences.now
        if presence is not None and self._table.recognise(presence.ledger.authors()):
            self._news.set()

    async def _seal_in_time(self) -> None:
        presence = self._presences.now
        listened_to = bool(self.accompanied)
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

    async def _accompany(self, status: PeerStatus) -> None:
        """Talk to a companion until it is none, or does not answer."""
        replica, presence = status.replica, self._presences.now
        try:
            if presence is not None:
                await self._talk(presence, status, self._talking[replica])
            await asyncio.sleep(REST_S)
        finally:
            del self._talking[replica]
            self._news.set()

    async def _talk(self, presence: Presence, status: PeerStatus, due: asyncio.Event) -> None:
        """Over one connection, until it fails."""
        compare = True
        async with self._client(presence, status.replica) as client:
            while self._presences.now is presence and self._is_companion(status):
                due.clear()
                self._behind.discard(status.replica)
                lacking = await self._exchange(presence, status, client, compare=compare)
                if lacking is None:
                    break
                compare = lacking or not await happens(due, BEAT_S) or status.replica in self._behind

    def _is_companion(self, status: PeerStatus) -> bool:
        return status.companion and self._table.get(status.replica) is status

    async def _visit(self) -> None:
        """Compare blocks with one other terminal after another, whoever was not met for longest; and with
        one of those that say to be."""
        while True:
            await asyncio.sleep(self._pacing.visit_every_s * (0.5 + self._uniform()))
            for member in (True, False):
                presence = self._presences.now
                status = self._table.turn(self._elapsed_s(), self._talking, member=member, companions=False)
                if presence is not None and status is not None:
                    async with self._client(presence, status.replica) as client:
                        await self._exchange(presence, status, client, compare=True)

    async def _exchange(
        self, presence: Presence, status: PeerStatus, client: ExchangeClient, *, compare: bool
    ) -> bool | None:
        """One run; whether sealed blocks are still missing on a side, None when it failed."""
        address = status.addresses.next()

        async def exchange(messages: Sequence[Message]) -> Answer:
            answer = await client.exchange(address, messages)
            if answer.vehicle is not None:
                status.said(answer.vehicle, self.vehicle())
            return answer

        run = PeerSync(self._terminal, presence, status.replica, exchange)
        try:
            lacking = await run.run() if compare else await run.tell()
        except Superseded:
            return None
        except (EdgeError, LedgerError) as error:
            self._failed(status, address, str(error))
            return None
        except Exception:
            # Taps must not stop for a bug out here, whatever provoked it.
            log.exception("an exchange with a peer failed: this is a bug, please report it")
            self._failed(status, address, "it failed by a bug; the log has the details")
            return None
        finally:
            status.brought += run.brought
        self._went_well(status, address)
        return lacking

    def _failed(self, status: PeerStatus, address: HubAddress, trouble: str) -> None:
        if status.online or (status.member and status.trouble != trouble):
            log.info("peer %s: %s", status.replica.hex(), trouble)
        status.failed(address, trouble, self._elapsed_s())

    def _went_well(self, status: PeerStatus, address: HubAddress) -> None:
        if not status.online:
            log.info("peer %s answers at %s", status.replica.hex(), address)
        status.answered(address, self._elapsed_s())

    def _client(self, presence: Presence, replica: ReplicaId) -> ExchangeClient:
        identity = presence.identity
        return ExchangeClient(
            identity.fleet, identity.replica, presence.asking, LIMITS, other_side=peer(replica)
        )
