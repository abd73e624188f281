"""The one file that wires the terminal together; all others receive their collaborators."""

import asyncio
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from crdt.facts import FleetId
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from crdt.store.keyfile import load_key
from crdt.store.marks import Marks
from edge.addresses import AddressBook, HubAddress, parse_address
from edge.backoff import Backoff
from edge.calling import Caller
from edge.clock import TerminalClock
from edge.control import Controls, bind, control_app
from edge.discovery import Discovery
from edge.enrolling import Enroller, Way
from edge.errors import EdgeError, ReaderTrouble
from edge.exchange import ExchangeClient
from edge.https import Limits
from edge.identity import Identity
from edge.notify import ServiceManager
from edge.peering import Peering
from edge.peers import Pacing
from edge.pruning import Pruning
from edge.report import Report
from edge.settings import Settings
from edge.taps import Place, TapPath
from edge.terminal import Terminal
from edge.terminal_settings import OwnSettings
from edge.tls import client_context
from edge.uplink import Uplink
from edge.words import STARTING, STOPPED
from hardware.errors import HardwareError
from hardware.feedback import Feedback, open_feedback
from hardware.pn532 import open_reader
from hardware.signals import Signal

PROVEN_HUB = "proven_hub"
"""Where the database keeps the address at which the hub answered last."""
WATCH_S = 1.0
"""How often the parts are looked after."""
LONGEST_BEAT_S = 20.0
"""A tap thread that has not come round for so long hangs; a reader's recovery takes a few seconds."""

log = logging.getLogger(__name__)


class Broken(EdgeError):
    """A part of the terminal has stopped for good; only a new start brings it back."""


def run(settings: Settings, environment: Mapping[str, str]) -> None:
    """Be the terminal until SIGTERM or SIGINT. Raises EdgeError or LedgerError, each a sentence."""
    with ExitStack() as held:
        key = load_key(settings.store_key_file, settings.database, environment)
        _make_directory(settings.state_directory)
        database = held.enter_context(Database.open(settings.database, key, layout=TERMINAL_LAYOUT))
        # With the ledger in hand, for another process that has it has the lights too; and before all else,
        # for whoever taps now would take the light of before for one that answers.
        feedback = held.enter_context(closing(_open_feedback(settings)))
        feedback.show(Signal.OUT_OF_SERVICE, STARTING)
        held.callback(feedback.show, Signal.OUT_OF_SERVICE, STOPPED)
        terminal = Terminal(database, Marks.open(settings.marks))
        listener = held.enter_context(closing(bind(settings.control_socket)))
        held.callback(settings.control_socket.unlink, missing_ok=True)
        asyncio.run(_serve(settings, database, terminal, feedback, listener, ServiceManager(environment)))


async def _serve(
    settings: Settings,
    database: Database,
    terminal: Terminal,
    feedback: Feedback,
    listener: socket.socket,
    manager: ServiceManager,
) -> None:
    stop = _stop_signal()
    kept = await asyncio.to_thread(_kept, settings, database, terminal)
    await _Parts(settings, database, terminal, feedback, kept).run(stop, listener, manager)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the disk has from the starts before."""

    hub: HubAddress | None
    clock: TerminalClock
    own: OwnSettings


class _Parts:
    """The parts of the running terminal, each given those that it works with. In the event loop."""

    def __init__(
        self, settings: Settings, database: Database, terminal: Terminal, feedback: Feedback, kept: _Kept
    ) -> None:
        self._settings = settings
        self._terminal = terminal
        self._clock = kept.clock
        addresses = AddressBook(settings.hub_address, kept.hub)
        way = Way(Limits(settings.uplink_timeout_s, settings.uplink_read_timeout_s), settings.uplink_proxy)

        def keep_proven(address: HubAddress) -> None:
            database.put_secret(PROVEN_HUB, str(address).encode())

        place = Place(settings.terminal_route, settings.terminal_door)
        own = kept.own
        self._taps = TapPath(
            terminal, self._clock, lambda: open_reader(own.reader_device), feedback, place, self._tapped
        )
        report = Report(settings, terminal, self._clock, lambda: self._taps.reader)
        self._uplink = _uplink(settings, terminal, addresses, report, self._clock, way, keep_proven)
        self._peering = _peering(settings, terminal)
        self._enroller = Enroller(terminal, addresses, settings.terminal_name, way, keep_proven, os.urandom)
        self._controls = Controls(
            report, self._uplink, self._enroller.pair, self._peering.status, terminal, own
        )

    async def run(self, stop: asyncio.Event, listener: socket.socket, manager: ServiceManager) -> None:
        """Be the terminal until `stop`; raise what ends a part before."""
        runner = web.AppRunner(control_app(self._controls), access_log=None)
        self._taps.start()
        try:
            await runner.setup()
            await web.SockSite(runner, listener).start()
            manager.ready(f"{self._settings.terminal_name}: ready")
            await _until(stop, self._jobs(manager))
            manager.stopping()
        finally:
            await runner.cleanup()
            await asyncio.to_thread(self._taps.stop)

    def _jobs(self, manager: ServiceManager) -> list[Coroutine[Any, Any, None]]:
        jobs: list[Coroutine[Any, Any, None]] = [
            self._uplink.run(),
            _watch(self._terminal, self._taps, manager),
            Pruning(self._terminal, self._clock.read).run(),
        ]
        if self._settings.discovery_enabled:
            jobs.append(Discovery(self._hinted, lambda: _fleet(self._terminal)).run())
        if self._settings.peers_enabled:
            jobs.append(self._peering.run())
        return jobs

    def _tapped(self) -> None:
        self._peering.tapped()
        self._uplink.tapped()

    def _hinted(self, hints: Iterable[HubAddress]) -> None:
        self._uplink.hinted(list(hints))
        self._enroller.hinted()


def _uplink(
    settings: Settings,
    terminal: Terminal,
    addresses: AddressBook,
    report: Report,
    clock: TerminalClock,
    way: Way,
    keep_proven: Any,
) -> Uplink:
    async def connect(identity: Identity) -> ExchangeClient:
        context = await asyncio.to_thread(client_context, identity)
        return ExchangeClient(identity.fleet, identity.replica, context, way.limits, way.proxy)

    backoff = Backoff(settings.uplink_backoff_min_s, settings.uplink_backoff_max_s, random.random)
    return Uplink(
        terminal,
        addresses,
        Caller(terminal, connect, report.for_hub, clock),
        clock,
        backoff,
        settings.uplink_heartbeat_s,
        proven=keep_proven,
    )


def _peering(settings: Settings, terminal: Terminal) -> Peering:
    pacing = Pacing(settings.terminal_vehicle, settings.peers_seal_after_s, settings.peers_visit_s)
    return Peering(terminal, pacing, settings.peers_port, random.random)


async def _watch(terminal: Terminal, taps: TapPath, manager: ServiceManager) -> None:
    """Tell systemd that taps are taken, and end when they cannot be any more."""
    while True:
        await asyncio.sleep(min(WATCH_S, manager.ping_every_s or WATCH_S))
        if terminal.failed:
            raise Broken("The ledger has failed; the terminal starts again to see what is on the disk.")
        if not taps.alive:
            raise Broken("The tap path has ended by a bug, see the log; the terminal starts again.")
        if time.monotonic() - taps.beat_s < LONGEST_BEAT_S:
            manager.alive()


async def _until(stop: asyncio.Event, jobs: list[Coroutine[Any, Any, None]]) -> None:
    """Run the jobs until `stop`, or until one of them ends, which is an error."""
    tasks = [asyncio.create_task(job) for job in jobs]
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        for task in [stopped, *tasks]:
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _kept(settings: Settings, database: Database, terminal: Terminal) -> _Kept:
    return _Kept(_proven_hub(database), _clock(terminal), OwnSettings(settings, terminal))


def _clock(terminal: Terminal) -> TerminalClock:
    enrolment = terminal.enrolment
    last_ms = None if enrolment is None else enrolment.ledger.last_at_ms()
    return TerminalClock(
        floor_ms=max(last_ms or 0, terminal.clock_floor_ms),
        epoch=terminal.next_clock_epoch(),
        save_epoch=terminal.save_clock_epoch,
        save_floor=terminal.save_clock_floor,
    )


def _fleet(terminal: Terminal) -> FleetId | None:
    enrolment = terminal.enrolment
    return None if enrolment is None else enrolment.identity.fleet


def _proven_hub(database: Database) -> HubAddress | None:
    stored = database.get_secret(PROVEN_HUB)
    with suppress(ValueError):
        return parse_address(stored.decode()) if stored else None
    return None


def _open_feedback(settings: Settings) -> Feedback:
    try:
        return open_feedback(settings.feedback_device)
    except HardwareError as error:
        raise ReaderTrouble(f"feedback.device: {error}") from error


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeError(f"The state directory {path} cannot be made ({error.strerror}).") from error
