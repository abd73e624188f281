"""A real hub in the test's process: real SQLCipher, real TLS, real control socket; no zeroconf."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hub import founding, server
from hub.app import Hub, Served, now_ms, serving
from hub.control_client import ask
from hub.events import EventBus
from hub.recalling import Recall
from hub.sealing import Sealer
from hub.settings import HubSettings, load
from tests.crdt.store.servers import Server
from tests.hub.terminal import Terminal
from tests.hub.tls import client_context

PASSWORD = "correct horse"
SETTINGS = """\
state_directory = "state"
store.key_file = "hub.key"
announce.enabled = false
server.host = "127.0.0.1"
server.port = 0
"""


@pytest.fixture
def write_settings(tmp_path: Path) -> Callable[[str], HubSettings]:
    """Settings of a hub in the test's directory: any free port, no announcement, and what the test adds."""

    def write(more: str = "") -> HubSettings:
        file = tmp_path / "hub.toml"
        file.write_text(SETTINGS + more)
        return load(file)

    return write


@pytest.fixture(scope="session")
def fleet_founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the state and the key of a hub that was never up: of the same fleet for all tests."""
    directory = tmp_path_factory.mktemp("founded")
    (directory / "hub.toml").write_text(SETTINGS)
    founding.found(load(directory / "hub.toml"), PASSWORD, {})
    return directory


@dataclass
class Depot:
    """A hub that is up, and how to reach it."""

    hub: Hub
    served: Served

    @property
    def url(self) -> str:
        return self.served.url

    @property
    def bus(self) -> EventBus:
        return self.served.bus

    @property
    def lost(self) -> Recall:
        """What takes in the lists of revocations that it has lost."""
        authority, served = self.hub.authority, self.served
        sealer = Sealer(authority.fleet, authority.ledger_key)
        return Recall(self.hub.ledger, served.registry, served.bus, sealer, asyncio.wrap_future, now_ms)

    async def ask(self, method: str, target: str, body: dict[str, Any] | None = None) -> Any:
        """What a command would ask over the control socket."""
        return await asyncio.to_thread(ask, self.hub.settings.control_socket, method, target, body)

    async def invite(self) -> str:
        return str((await self.ask("POST", "/invite", {}))["code"])

    async def pair(self, name: str = "Bus 1 front", claimed: bytes = b"") -> Terminal:
        return await Terminal.pair(self.url, await self.invite(), name, claimed)

    async def projected(self) -> None:
        """Wait until the history, which may lag, has caught up with the record."""
        while await asyncio.wrap_future(self.hub.ledger.lag()):  # noqa: ASYNC110  (it has no event to wait for)
            await asyncio.sleep(0.005)

    async def digest(self) -> bytes:
        return await asyncio.wrap_future(self.hub.ledger.digest())

    async def browser_tls(self) -> Any:
        return await asyncio.to_thread(client_context, self.hub.authority.root_pem)


@pytest.fixture
def founded(
    write_settings: Callable[[str], HubSettings],
    fleet_founded: Path,
    hub_server: Server | None,
    request: pytest.FixtureRequest,
) -> Iterator[Hub]:
    """A founded hub, its database open. More settings: `parametrize("founded", [toml], indirect=True)`."""
    more = getattr(request, "param", "")
    if hub_server is not None:
        settings = write_settings(f'store.url = "{hub_server.fresh()}"\n{more}')
        founding.found(settings, PASSWORD, {})
    else:
        settings = write_settings(more)
        shutil.copytree(fleet_founded / "state", settings.state_directory)
        shutil.copy(fleet_founded / "hub.key", settings.key_file)
    with (
        founding.opened(settings, {}) as (database, secrets),
        founding.open_ledger(settings, database, secrets) as (authority, ledger),
    ):
        yield Hub(settings, database, authority, secrets.cookie_key, ledger)


@asynccontextmanager
async def running(hub: Hub) -> AsyncIterator[Depot]:
    listeners = await asyncio.to_thread(server.listen, hub.settings.host, hub.settings.port)
    async with serving(hub, listeners) as served:
        yield Depot(hub, served)


@pytest_asyncio.fixture
async def depot(founded: Hub) -> AsyncIterator[Depot]:
    """The hub, up."""
    async with running(founded) as depot:
        yield depot
