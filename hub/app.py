"""The one file that wires the hub: parts made here are handed to those that need them."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

from aiohttp import web

from crdt.certificate import Limits
from crdt.facts import Kind
from crdt.protocol import IDENTIFY, PAIR_FINISH, PAIR_START, RENEW, REVOKED_LIST, SYNC
from crdt.store.hub import HubLedger
from crdt.store.store import Store
from hub import control, founding, pages, server
from hub.addresses import Follower, certificate
from hub.announce import Announcement, Announcer, local_interfaces, watch_interfaces
from hub.authority import Authority
from hub.background import beside, close_days, see_time, until_failed, watchdog
from hub.backup import Backups
from hub.callers import Callers
from hub.connections import GuardedSite
from hub.control_ledger import ledger_routes
from hub.control_settings import settings_routes
from hub.daybook import Daybook
from hub.errors import PutBack
from hub.events import EventBus
from hub.evidence import Evidence
from hub.exposure import Exposures
from hub.invites import Invites
from hub.keys import (
    ABOUT,
    BACKUPS,
    DAYBOOK,
    EVENTS,
    EVIDENCE,
    EXPOSURES,
    LEDGER,
    OPERATORS,
    OVERVIEW,
    RECALL,
    SERVICE,
    SETTINGS_DESK,
    About,
)
from hub.ledger_events import live_events
from hub.notify import ServiceManager
from hub.operators import Operators
from hub.overview import Overview
from hub.pairing import RATE_WINDOW_S, Pairing
from hub.ratelimit import RateLimit
from hub.recalling import Recall
from hub.registry import Registry
from hub.renewal import RATE_WINDOW_S as RENEWAL_WINDOW_S
from hub.renewal import Renewal
from hub.revoked_list import RevokedList
from hub.sealing import Sealer
from hub.service import Author, Service
from hub.sessions import Sessions
from hub.settings import HubSettings
from hub.settings_desk import SettingsDesk
from hub.shield import ERROR_PAGE, JSON_ERRORS, add_headers, deadlines, operators_only, refusals
from hub.sync import Sync
from hub.terminal_documents import TerminalDocuments
from hub.turns import Turns

VERSION = version("farebox")
SWITCH_S = 0.0005  # how long a thread that computes keeps the others waiting: an answer crosses threads often
TERMINAL_KINDS = frozenset({Kind.FARE, Kind.OPENING})  # what a terminal may write


@dataclass(frozen=True, slots=True)
class Hub:
    """The parts of a hub that live as long as its database is open."""

    settings: HubSettings
    database: Store
    authority: Authority
    cookie_key: bytes
    ledger: HubLedger


def run(settings: HubSettings, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `say` gets one line when the hub is up. Raises HubError, StoreError."""
    sys.setswitchinterval(SWITCH_S)
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    with (
        founding.opened(settings, environment) as (database, secrets),
        founding.open_ledger(settings, database, secrets) as (authority, ledger),
    ):
        hub = Hub(settings, database, authority, secrets.cookie_key, ledger)
        server.make_room(settings.connections)
        listeners = server.listen(settings.host, settings.port)
        asyncio.run(_serve(hub, listeners, ServiceManager(environment), say))


async def _serve(
    hub: Hub, listeners: list[socket.socket], manager: ServiceManager, say: Callable[[str], None]
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(hub, listeners) as served, beside(watchdog(manager)):
        manager.ready(f"serving on {served.url}")
        say(f"The hub of fleet {hub.authority.fleet.hex()[:8]} is up: {served.url}")
        stopped = asyncio.create_task(stop.wait())
        failed = asyncio.create_task(until_failed(hub.database, hub.ledger))
        done, pending = await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        manager.stopping()
    if failed in done:
        await asyncio.wrap_future(hub.database.read(lambda _connection: None))  # fails in its own words
        raise PutBack()


@dataclass(frozen=True, slots=True)
class Served:
    """A hub that is up."""

    url: str
    port: int
    site: GuardedSite
    bus: EventBus
    registry: Registry


@asynccontextmanager
async def serving(hub: Hub, listeners: list[socket.socket]) -> AsyncIterator[Served]:
    """The whole hub on these sockets, until the block ends: HTTPS, control socket, announcement."""
    port = int(listeners[0].getsockname()[1])
    url = server.url_of(hub.settings.host, port)
    bus = EventBus()
    async with AsyncExitStack() as stack:
        for listener in listeners:
            stack.callback(listener.close)
        registry = Registry(hub.database)
        stack.push_async_callback(registry.sightings.close)
        app, control_app = build(hub, bus, url, registry)
        interfaces = await asyncio.to_thread(local_interfaces)
        pem = certificate(hub.authority, interfaces)
        context = await asyncio.to_thread(hub.authority.server_context, pem)
        stack.enter_context(live_events(hub.ledger, bus))
        site = await stack.enter_async_context(server.serving(app, listeners, context, hub.settings))
        control_socket = await asyncio.to_thread(control.bind, hub.settings.control_socket)
        await stack.enter_async_context(server.serving_locally(control_app, control_socket))
        stack.callback(bus.close)
        announcer = await stack.enter_async_context(_announcer(hub, listeners))
        follower = Follower(hub.authority, announcer, context, interfaces)
        if hub.settings.close_days_after_h:
            closing = close_days(app[DAYBOOK], hub.settings.close_days_after_h)
            await stack.enter_async_context(beside(closing))
        watching = watch_interfaces(local_interfaces, follower.seen, hub.settings.announce_poll_s)
        await stack.enter_async_context(beside(watching))
        await stack.enter_async_context(beside(registry.sightings.keep_writing()))
        await stack.enter_async_context(beside(see_time(hub.ledger)))
        yield Served(url, port, site, bus, registry)


def build(hub: Hub, bus: EventBus, url: str, registry: Registry) -> tuple[web.Application, web.Application]:
    """The application for the network, and the one for the control socket."""
    settings, database = hub.settings, hub.database
    invites = Invites(database, settings.invite_expiry_s, settings.invite_tries)
    author = _author(hub)
    documents = TerminalDocuments(database, author.fleet, author.key, asyncio.wrap_future)
    service = Service(database, hub.ledger, author, registry, invites, bus, now_ms, os.urandom)
    recall = _recall(hub, registry, bus)
    app, control_app = _network_app(hub, bus), _control_app(hub, recall)
    evidence = Evidence(database, hub.ledger)
    daybook = Daybook(hub.ledger, registry, service.fleet.policy, now_ms)
    exposures = Exposures(database, registry, settings.online_s, now_ms, time.monotonic)
    overview = Overview(hub.ledger, registry, settings.online_s, now_ms, time.monotonic)
    about = About(hub.authority.fleet.hex(), settings.announce_name, url, VERSION)
    for each in (app, control_app):
        each[EVIDENCE] = evidence
        each[EXPOSURES], each[DAYBOOK] = exposures, daybook
        each[ABOUT], each[OVERVIEW], each[SERVICE] = about, overview, service
        each[SETTINGS_DESK] = SettingsDesk(documents, registry, bus)
    app.add_routes(_terminal_routes(hub, service, registry, invites, bus, documents, recall))
    app.add_routes(pages.routes())
    return app, control_app


def _author(hub: Hub) -> Author:
    """Who enrols terminals, and with which limits."""
    settings, authority = hub.settings, hub.authority
    limits = Limits(
        TERMINAL_KINDS, settings.max_credit_minor, settings.max_debit_minor, settings.allowance_minor
    )
    return Author(authority.fleet, authority.ledger_key, authority.hub_certificate, limits)


def _network_app(hub: Hub, bus: EventBus) -> web.Application:
    settings = hub.settings
    app = web.Application(
        middlewares=[deadlines, refusals, operators_only], client_max_size=server.MAX_BODY_BYTES
    )
    app[ERROR_PAGE] = pages.error_page
    app[EVENTS] = bus
    sessions = Sessions(hub.database, settings.session_idle_s, settings.session_longest_s, now_ms, os.urandom)
    app[OPERATORS] = Operators(
        hub.database, sessions, hub.cookie_key, settings.login_attempts, time.monotonic
    )
    app.on_response_prepare.append(add_headers)
    return app


def _control_app(hub: Hub, recall: Recall) -> web.Application:
    app = web.Application(middlewares=[refusals], client_max_size=server.MAX_BODY_BYTES)
    app[JSON_ERRORS] = True
    app[LEDGER], app[BACKUPS], app[RECALL] = hub.ledger, Backups(hub.settings, os.environ), recall
    for routes in (control.control_routes(), ledger_routes(), settings_routes()):
        app.add_routes(routes)
    return app


def _recall(hub: Hub, registry: Registry, bus: EventBus) -> Recall:
    sealer = Sealer(hub.authority.fleet, hub.authority.ledger_key)
    return Recall(hub.ledger, registry, bus, sealer, asyncio.wrap_future, now_ms)


def _terminal_routes(
    hub: Hub,
    service: Service,
    registry: Registry,
    invites: Invites,
    bus: EventBus,
    documents: TerminalDocuments,
    recall: Recall,
) -> list[web.RouteDef]:
    settings = hub.settings
    callers = Callers(registry, now_ms)
    turns = Turns(settings.exchanges, time.monotonic)
    sync = Sync(
        hub.database, hub.ledger, callers, registry, bus, turns, settings.page_rows, now_ms, documents, recall
    )
    return [
        web.post(SYNC, sync.sync),
        web.get(IDENTIFY, sync.identify),
        web.get(REVOKED_LIST, RevokedList(hub.ledger, callers, turns).get),
        *_identity_routes(hub, service, invites, callers, bus),
    ]


def _identity_routes(
    hub: Hub, service: Service, invites: Invites, callers: Callers, bus: EventBus
) -> list[web.RouteDef]:
    """Where a terminal gets an identity: the first by a code, the next by the one before."""
    settings = hub.settings
    pairing = Pairing(
        hub.ledger,
        hub.authority,
        invites,
        service.fleet.enrolment,
        RateLimit(settings.pairings_per_minute, RATE_WINDOW_S, time.monotonic),
        service.revoker,
        now_ms,
        time.monotonic,
        os.urandom,
    )
    renewals = RateLimit(settings.renewals_per_hour, RENEWAL_WINDOW_S, time.monotonic)
    renewal = Renewal(
        hub.database,
        hub.authority,
        hub.ledger,
        service.revoker,
        callers,
        bus,
        renewals,
        settings.renewals_per_day,
        now_ms,
    )
    return [
        web.post(PAIR_START, pairing.start),
        web.post(PAIR_FINISH, pairing.finish),
        web.post(RENEW, renewal.renew),
    ]


def now_ms() -> int:
    """The hub's clock."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def _announcer(hub: Hub, listeners: list[socket.socket]) -> AsyncIterator[Announcer]:
    settings = hub.settings
    names = [one.getsockname() for one in listeners]
    bound = tuple(address for address, *_ in names)
    announcement = Announcement(settings.announce_name, hub.authority.fleet, names[0][1], bound)
    announcer = Announcer(announcement, settings.announce_interfaces, enabled=settings.announce)
    try:
        yield announcer
    finally:
        await announcer.stop()
