"""A terminal among its peers: it answers, is announced, listens and asks. Puts the parts together.

All of it is extra: where the network or the port cannot be used, taps and the way to the hub go on without.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack, closing
from typing import Any

from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from crdt.protocol import PEER_SERVICE_TYPE
from edge.errors import PeersUnusable
from edge.lan import INTERFACE_POLL_S, Interfaces, Lan, all_interfaces, local_interfaces
from edge.pace import Pace
from edge.peer_announce import own_record, peers_in
from edge.peer_server import PeerServer, listen
from edge.peer_site import PeerLimits
from edge.peers import Pacing, Peers
from edge.presence import Presences
from edge.terminal import Terminal

BURST, PER_S = 40, 8.0
"""Exchanges that one terminal may begin at once, and in a second for long: a tap is one."""

AGAIN_S = 30.0
"""Before it is begun anew, after a bug has ended it."""

log = logging.getLogger(__name__)


class Peering:
    """All that a terminal does with others of its fleet. In the event loop, except `tapped`."""

    def __init__(
        self,
        terminal: Terminal,
        pacing: Pacing,
        port: int,
        uniform: Callable[[], float],
        *,
        network: Callable[[], AsyncZeroconf] = all_interfaces,
        interfaces: Callable[[], Interfaces] = local_interfaces,
        poll_s: float = INTERFACE_POLL_S,
        limits: PeerLimits | None = None,
    ) -> None:
        """`port`: where to answer; 0 is any that is free."""
        self._port = port
        self._answers = False
        self.presences = Presences(terminal)
        self.peers = Peers(terminal, self.presences, pacing, uniform)
        pace = Pace(BURST, PER_S, asyncio.get_running_loop().time)
        self._server = PeerServer(
            terminal,
            self.presences,
            self.peers.asked,
            self.peers.vehicle,
            pace,
            limits or PeerLimits(),
        )
        self._lan = Lan(
            PEER_SERVICE_TYPE,
            self._heard,
            self._own,
            network=network,
            interfaces=interfaces,
            poll_s=poll_s,
        )

    @property
    def port(self) -> int:
        """Where peers are answered; 0 until `run` has found one."""
        return self._port

    def tapped(self) -> None:
        """A tap is durable. From any thread; does nothing that could wait."""
        self.peers.tapped()

    def status(self) -> list[dict[str, Any]]:
        """How it stands with each peer, for the technician: not with the terminal's own former identities,
        which are heard of for a while yet, unless one answers elsewhere."""
        now_s, presence = asyncio.get_running_loop().time(), self.presences.now
        former = frozenset() if presence is None else presence.former
        return [
            {
                "replica": status.record.replica.hex(),
                "vehicle": status.record.vehicle,
                "companion": status.companion,
                "online": status.online,
                "address": "" if status.address is None else str(status.address),
                "seen_s_ago": None if status.at_s is None else round(now_s - status.at_s, 1),
                "brought": status.brought,
                "trouble": status.trouble,
            }
            for status in self.peers.status()
            if status.online or status.replica not in former
        ]

    async def run(self) -> None:
        """Until cancelled, whatever happens: a terminal without peers takes taps as well."""
        while True:
            try:
                await self._run()
            except Exception:
                log.exception("talking to peers failed: this is a bug, please report it")
            self._answers = False
            await asyncio.sleep(AGAIN_S)

    async def _run(self) -> None:
        await asyncio.to_thread(self.presences.refresh)
        async with AsyncExitStack() as parts:
            try:
                listener = parts.enter_context(closing(listen(self._port)))
            except PeersUnusable as error:
                log.warning("%s Until then peers are asked, and get no answer.", error)
            else:
                await parts.enter_async_context(self._server.serving(listener))
                self._port, self._answers = listener.getsockname()[1], True
            tasks = await parts.enter_async_context(asyncio.TaskGroup())
            tasks.create_task(self._lan.run())
            tasks.create_task(self.peers.run())

    def _heard(self, records: Mapping[str, AsyncServiceInfo], _names: Collection[str]) -> None:
        presence = self.presences.now
        self.peers.heard([] if presence is None else peers_in(records.values(), presence.identity))

    def _own(self, interfaces: Interfaces) -> ServiceInfo | None:
        presence = self.presences.now
        if presence is None or not self._answers:
            return None
        return own_record(presence.identity, self.peers.vehicle(), self._port, interfaces)
