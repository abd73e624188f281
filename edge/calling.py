"""Calls the hub at one address, as whoever the terminal is: one sync run, with what one leads to.

That is the identity which the hub gives a terminal that needs another, and the list of who was revoked where
the hub refuses it for that.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from crdt.errors import InputRefused
from crdt.frames import Message
from crdt.protocol import RENEW
from edge import revoked_list
from edge.addresses import HubAddress
from edge.clock import TerminalClock
from edge.delivery import Delivery, is_cut_off
from edge.errors import HubRefused, Superseded, UplinkError
from edge.exchange import Answer, Client
from edge.identity import Identity
from edge.renewal import renewed_identity
from edge.run import Exchange
from edge.sync import Outcome, Sync
from edge.terminal import Enrolment, Terminal

DATE_RESOLUTION_MS = 1_000
"""The Date header counts whole seconds."""

log = logging.getLogger(__name__)


class Caller:
    """Keeps its connection, and what one run learns for the next, for as long as the terminal is the same."""

    def __init__(
        self,
        terminal: Terminal,
        connect: Callable[[Identity], Awaitable[Client]],
        describe: Callable[[], Mapping[str, Any]],
        clock: TerminalClock,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`connect` makes a client for an identity; `describe` gives the status for the operator, and may
        wait; `clock` learns what time the hub has; `entropy` gives the randomness of new keys."""
        self._terminal = terminal
        self._connect = connect
        self._describe = describe
        self._clock = clock
        self._entropy = entropy
        self._client: Client | None = None
        self._client_identity: Identity | None = None
        self._delivery = Delivery()

    @property
    def disputed(self) -> str:
        """What the hub does not take, in sentences; "" when nothing."""
        return self._delivery.notes

    async def call(self, enrolment: Enrolment, address: HubAddress, *, retry: bool) -> Outcome:
        """One sync run at this address; what it has done. `retry`: see Sync.

        Raises UplinkError or LedgerError.
        """
        promised = self._terminal.promised  # at the address before, perhaps
        client = await self._connected(enrolment.identity if promised is None else promised.identity)

        async def renew(reissued: Sequence[bytes]) -> Exchange:
            return await self._renew(address, reissued)

        async def former() -> Exchange:
            return self._exchange(await self._connected(enrolment.identity), address)

        exchange = self._exchange(client, address)
        run = Sync(self._terminal, enrolment, exchange, self._describe, self._delivery, retry, renew, former)
        try:
            return await run.run()
        except HubRefused as error:
            if is_cut_off(error) and not enrolment.ledger.revoked and self._delivery.hearing.is_over():
                self._delivery.hearing.begin()
                await self._hear_who_is_revoked(enrolment, client, address)
            raise

    async def hang_up(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)

    async def _hear_who_is_revoked(self, enrolment: Enrolment, client: Client, address: HubAddress) -> None:
        """Keep the hub's list, by which the terminal takes itself out of service."""
        identity = enrolment.identity

        def keep(messages: Sequence[Message]) -> None:
            with self._terminal.syncing(identity):
                revoked_list.learn(identity, enrolment.ledger, messages)

        try:
            await asyncio.to_thread(keep, await client.revoked_list(address))
        except (UplinkError, InputRefused) as error:
            log.warning("who was revoked is not known: %s", error)

    def _exchange(self, client: Client, address: HubAddress) -> Exchange:
        async def exchange(messages: Sequence[Message]) -> Answer:
            answer = await client.exchange(address, messages)
            if answer.at_ms is not None:
                uncertainty_ms = answer.took_ms + DATE_RESOLUTION_MS
                await asyncio.to_thread(self._clock.compare, answer.at_ms, uncertainty_ms)
            return answer

        return exchange

    async def _renew(self, address: HubAddress, reissued: Sequence[bytes]) -> Exchange:
        """Have the hub there promise a new identity, instead of one that it has forgotten where there is one;
        the next exchange is under its certificate."""
        enrolment, client = self._terminal.enrolment, self._client
        if enrolment is None or client is None:
            raise Superseded("The terminal was paired anew meanwhile.")

        async def ask(request: Mapping[str, Any]) -> dict[str, Any]:
            return await client.ask(address, RENEW, request)

        forgotten = self._terminal.promised
        promised = await renewed_identity(ask, enrolment.identity, reissued, self._entropy, forgotten)
        await asyncio.to_thread(self._terminal.promise, promised, enrolment.identity)
        return self._exchange(await self._connected(promised.identity), address)

    async def _connected(self, identity: Identity) -> Client:
        if self._client is None or self._client_identity is not identity:
            await self.hang_up()
            self._client = await (await self._connect(identity)).__aenter__()
            self._client_identity = identity
            self._delivery = Delivery()
        return self._client
