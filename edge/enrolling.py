"""Pairing as the technician asks for it: find a hub, pair, become what it says, remember where it is."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from crdt.pairing import PairingCode
from edge.addresses import AddressBook, HubAddress
from edge.comparing import take_up
from edge.errors import EdgeError, HubUnreachable, NotCompared, PairingError, UplinkError
from edge.exchange import ExchangeClient
from edge.https import Limits
from edge.identity import new_keys
from edge.pairing import Pairing, Restored, parse_code
from edge.promised import Promised
from edge.terminal import Terminal
from edge.tls import client_context
from edge.waiting import Wait, happens

FIND_TIMEOUT_S = 10.0
"""How long to wait for a hub to be announced; zeroconf takes one to three seconds."""
LATE_S = 3.0
"""How long to wait for another hub's announcement after those heard so far have failed."""
MAX_ASKED = 32
"""Addresses at which one code is tried: whoever is on the LAN announces as many hubs as he likes."""

SEARCH_S = 90.0
"""How long another address is begun with at all: a liar's may keep silent. Half of the time for which the
technician's command waits."""

_NONE_ANNOUNCED = (
    "No hub is announced on this network. Check that the hub runs and is on the same network, or give its"
    " address: farebox-tech pair CODE --hub HOST:PORT"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Way:
    """How connections are made: time limits, and a proxy's URL or ""."""

    limits: Limits
    proxy: str


class Enroller:
    """Pairs the terminal, one attempt at a time. In the event loop, except `proven`."""

    def __init__(
        self,
        terminal: Terminal,
        addresses: AddressBook,
        name: str,
        way: Way,
        proven: Callable[[HubAddress], object],
        entropy: Callable[[int], bytes],
        *,
        wait: Wait = happens,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`proven` keeps an address that worked; it may wait."""
        self._terminal = terminal
        self._addresses = addresses
        self._name = name
        self._way = way
        self._proven = proven
        self._entropy = entropy
        self._wait = wait
        self._elapsed_s = elapsed_s
        self._heard = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def hinted(self) -> None:
        """The network was looked at; the address book has what is announced, news or none."""
        self._heard.set()

    async def pair(self, code_text: str, address: HubAddress | None) -> None:
        """Pair at `address`, or with whichever known hub takes the code.

        Raises PairingError or HubUnreachable; then the terminal is what it was, and after NotCompared its
        uplink goes on with it.
        """
        code = parse_code(code_text)
        async with self._one_at_a_time:
            if address is not None:
                await self._pair_at(code, address)
            else:
                await self._pair_somewhere(code)

    async def _pair_somewhere(self, code: PairingCode) -> None:
        tried: set[HubAddress] = set()
        failure: EdgeError = HubUnreachable(_NONE_ANNOUNCED)
        over_s = self._elapsed_s() + SEARCH_S
        until_s = self._elapsed_s() + FIND_TIMEOUT_S
        while len(tried) < MAX_ASKED and self._elapsed_s() < over_s:
            self._heard.clear()
            untried = self._addresses.candidates(but=tried)
            if not untried:
                await self._wait(self._heard, until_s - self._elapsed_s())
                if not self._heard.is_set():
                    raise failure
                continue
            tried.add(untried[0])
            try:
                return await self._pair_at(code, untried[0])
            except NotCompared:  # this hub took the code; no other will
                raise
            except PairingError as error:
                failure = error  # there may be a neighbour's hub too, which does not know the code
            except HubUnreachable as error:
                failure = failure if isinstance(failure, PairingError) else error
            until_s = self._elapsed_s() + LATE_S
        raise HubUnreachable(
            f"Too many hubs are announced on this network, and none of the {len(tried)} asked takes the code."
            " Nothing has changed. Give the address of yours: farebox-tech pair CODE --hub HOST:PORT (One of"
            f" them: {failure})"
        ) from failure

    async def _pair_at(self, code: PairingCode, address: HubAddress) -> None:
        before = self._terminal.enrolment
        terminal = None if before is None else before.identity.certificate.terminal
        restored = before if before is not None and before.ledger.suspended else None
        keys = await asyncio.to_thread(new_keys, self._entropy)
        pairing = Pairing(address, self._way.limits, self._way.proxy, self._entropy)
        ended = None if restored is None else Restored(restored.identity.certificate, self._promised())
        promised = await pairing.run(code, keys, self._name, terminal, ended)
        identity = promised.identity
        to_compare = restored is not None and restored.identity.fleet == identity.fleet
        if restored is not None and to_compare:
            await asyncio.to_thread(self._terminal.promise, promised, restored.identity)
        else:
            await asyncio.to_thread(self._terminal.enrol, identity)
        log.info("paired with fleet %s at %s as %s", identity.fleet.hex(), address, identity.replica.hex())
        if self._addresses.prove(address):
            await asyncio.to_thread(self._proven, address)
        if to_compare:
            await self._take_up(promised, address)

    def _promised(self) -> bytes:
        promised = self._terminal.promised
        return b"" if promised is None else promised.identity.certificate.encode()

    async def _take_up(self, promised: Promised, address: HubAddress) -> None:
        identity = promised.identity
        context = await asyncio.to_thread(client_context, identity)
        way = self._way
        client = ExchangeClient(identity.fleet, identity.replica, context, way.limits, way.proxy)
        try:
            async with client:
                await take_up(self._terminal, promised, partial(client.exchange, address))
        except UplinkError as error:
            now = self._terminal.enrolment
            if now is not None and now.identity is identity:
                return  # the uplink was quicker
            raise NotCompared(
                f"The hub has paired the terminal, but did not show what it holds of it: {error} Without"
                " that, taps could count twice, so until then the terminal keeps its taps and sends none. It"
                " asks again by itself, and now with: farebox-tech sync"
            ) from error
