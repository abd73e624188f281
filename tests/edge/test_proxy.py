"""Through an HTTP proxy (`uplink.proxy`, a bus's router): pairing, sync, and what is said when it is gone."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crdt.pairing import PairingCode
from crdt.store.database import Database
from edge.addresses import AddressBook, HubAddress
from edge.enrolling import Enroller, Way
from edge.errors import HubUnreachable
from edge.exchange import ExchangeClient
from edge.https import Limits
from edge.sync import Sync
from edge.terminal import Terminal
from edge.tls import client_context
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, document
from tests.edge.test_uplink import enrolled
from tests.edge.testhub import TestHub, open_ledger

LIMITS = Limits(total_s=20, read_s=20)


@dataclass
class Proxy:
    """HTTP CONNECT and nothing else; `refuse` answers 502, as a router without a network does."""

    refuse: bool = False
    asked: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its URL."""
        tunnels: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tunnels.add(task)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._tunnel(reader, writer)
            writer.close()

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.wait(tunnels, timeout=30)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = request.split(" ", 2)
        assert method == "CONNECT"
        self.asked.append(target)
        if self.refuse:
            writer.write(b"HTTP/1.1 502 No Network\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        host, _, port = target.partition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def synced(terminal: Terminal, address: HubAddress, proxy: str) -> None:
    now = enrolled(terminal)
    context = await asyncio.to_thread(client_context, now.identity)
    async with ExchangeClient(now.identity.fleet, now.identity.replica, context, LIMITS, proxy) as client:
        await Sync(terminal, now, lambda messages: client.exchange(address, messages), dict).run()


async def test_a_terminal_pairs_and_syncs_through_its_router_and_nowhere_else(
    terminal: Terminal, fleet: Fleet, hub_database: Database, tmp_path: Path
) -> None:
    ledger = await asyncio.to_thread(open_ledger, hub_database, fleet)
    code = PairingCode.parse("4-7K2M9QX")
    hub = TestHub(fleet, ledger, document=document(fleet, FARES), code=code)
    router = Proxy()
    async with hub.serving(tmp_path) as address, router.serving() as proxy:
        way = Way(LIMITS, proxy)
        enroller = Enroller(terminal, AddressBook(None, None), "Bus 12", way, lambda _: None, os.urandom)
        await enroller.pair(str(code), address)
        await synced(terminal, address, proxy)
        assert enrolled(terminal).fares == FARES
        assert set(router.asked) == {str(address)}
        router.refuse = True
        with pytest.raises(HubUnreachable, match="The proxy does not reach 127.0.0.1"):
            await synced(terminal, address, proxy)


async def test_a_router_that_is_gone_is_no_hub_in_reach(paired: Terminal) -> None:
    with pytest.raises(HubUnreachable, match="No hub answers"):
        await synced(paired, HubAddress("127.0.0.1", 2), "http://127.0.0.1:1")
