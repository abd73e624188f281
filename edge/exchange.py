"""One exchange with the hub or a peer: one POST, a sync session each way, everything about it bounded.

What can go wrong is one of the errors of https.py, HubBusy, or AnswerRefused for what is no session.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Protocol, Self

import aiohttp
from aiohttp import hdrs

from crdt.errors import RefusalCode
from crdt.facts import FleetId, ReplicaId
from crdt.frames import MAX_EXCHANGE_BYTES, Hello, Message, Refusal
from crdt.protocol import CONTENT_TYPE, REVOKED_LIST, SYNC
from crdt.session import Ended, Event, Refused, Session
from crdt.tlsnames import HUB_TLS_NAME, replica_tls_name
from edge.addresses import HubAddress
from edge.errors import AnswerRefused, HubBusy, HubRefused, UplinkError
from edge.https import Limits, object_in, open_http, refusal_of, shown, translated
from edge.vehicle_header import vehicle_in


@dataclass(frozen=True, slots=True)
class OtherSide:
    """Who has to answer: the name in its TLS certificate, and what sentences call it."""

    tls_name: str
    word: str


_WHOLE_SECONDS = re.compile("[0-9]{1,9}")

HUB = OtherSide(HUB_TLS_NAME, "hub")


def peer(replica: ReplicaId) -> OtherSide:
    """The terminal that writes as `replica`."""
    return OtherSide(replica_tls_name(replica), "terminal")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side said: its HELLO, then the rest in order; refusals among it.

    `at_ms` is its clock (Unix ms) by the Date header, None when it sent none; `took_ms` how long it all took.
    """

    hello: Hello
    messages: tuple[Message, ...]
    at_ms: int | None
    took_ms: int
    vehicle: str | None = None
    """That a peer says to be on; None when it says nothing, as a hub."""

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """What the other side refused of what it was sent."""
        return tuple(message for message in self.messages if isinstance(message, Refusal))


class Client(Protocol):
    """What the uplink uses of an ExchangeClient."""

    async def __aenter__(self) -> "Client": ...
    async def __aexit__(self, *error: object) -> None: ...
    async def exchange(self, address: HubAddress, messages: Sequence[Message]) -> Answer: ...
    async def ask(self, address: HubAddress, path: str, request: Mapping[str, Any]) -> dict[str, Any]: ...
    async def revoked_list(self, address: HubAddress) -> tuple[Message, ...]: ...


class ExchangeClient:
    """Exchanges with one other side as one terminal; keeps its connection. Use it in an `async with`."""

    def __init__(
        self,
        fleet: FleetId,
        replica: ReplicaId,
        context: ssl.SSLContext,
        limits: Limits,
        proxy: str = "",
        clock_s: Callable[[], float] = time.monotonic,
        other_side: OtherSide = HUB,
    ) -> None:
        self._fleet = fleet
        self._replica = replica
        self._context = context
        self._limits = limits
        self._proxy = proxy or None
        self._clock_s = clock_s
        self._other_side = other_side

    async def __aenter__(self) -> Self:
        self._http = open_http(self._context, self._limits)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._http.close()

    async def exchange(self, address: HubAddress, messages: Sequence[Message]) -> Answer:
        """Send `messages` (HELLO first), return the answer. Raises UplinkError; never returns a part."""
        session = Session(self._fleet, self._replica)
        body = b"".join(session.send(message) for message in messages)
        return await self._answered(session, hdrs.METH_POST, address, SYNC, body)

    async def revoked_list(self, address: HubAddress) -> tuple[Message, ...]:
        """The fleet's list of revoked identities and its signer, which a hub gives to those on it as well.
        Raises UplinkError."""
        session = Session(self._fleet, self._replica)
        return (await self._answered(session, hdrs.METH_GET, address, REVOKED_LIST, None)).messages

    async def _answered(
        self, session: Session, method: str, address: HubAddress, path: str, body: bytes | None
    ) -> Answer:
        began_s = self._clock_s()
        async with (
            translated(address, self._other_side.word),
            self._http.request(
                method,
                address.url(path),
                data=body,
                headers={} if body is None else {hdrs.CONTENT_TYPE: CONTENT_TYPE},
                proxy=self._proxy,
                allow_redirects=False,
                server_hostname=self._other_side.tls_name,
            ) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise _busy_or(await refusal_of(response, self._other_side.word), response)
            received = await _receive(response, session)
            at_ms, vehicle = _date_ms(response), vehicle_in(response.headers)
        took_ms = round((self._clock_s() - began_s) * 1000)
        return Answer(*split(received), at_ms, took_ms, vehicle)

    async def ask(self, address: HubAddress, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """POST a JSON object, return the one in the answer. Raises UplinkError."""
        async with (
            translated(address, self._other_side.word),
            self._http.post(
                address.url(path),
                json=request,
                proxy=self._proxy,
                allow_redirects=False,
                server_hostname=self._other_side.tls_name,
            ) as response,
        ):
            return await object_in(response, self._other_side.word)


def refusal_in(refusal: Refusal) -> HubRefused:
    """A refusal within a hub's answer as an error."""
    return HubRefused(f"The {HUB.word} refused: {shown(refusal.text)}", refusal.code.name.lower())


async def _receive(response: aiohttp.ClientResponse, session: Session) -> list[Event]:
    if response.headers.get("Content-Encoding") or response.content_type != CONTENT_TYPE:
        raise AnswerRefused(RefusalCode.MALFORMED, f"it is not {CONTENT_TYPE}")
    events: list[Event] = []
    received_bytes = 0
    async for chunk in response.content.iter_any():
        received_bytes += len(chunk)
        if received_bytes > MAX_EXCHANGE_BYTES:
            raise AnswerRefused(RefusalCode.TOO_LARGE, "it is larger than an exchange may be")
        events += session.receive_data(chunk)
        if events and isinstance(events[-1], Refused):
            break
        await asyncio.sleep(0)  # a flood of small frames must not keep other tasks waiting
    return events + session.receive_eof()


def split(events: list[Event]) -> tuple[Hello, tuple[Message, ...]]:
    """The messages in order, without the session's own events. Raises AnswerRefused."""
    match events:
        case [*_, Refused(code, text)]:
            raise AnswerRefused(code, text)
        case [Hello() as hello, *rest, Ended()]:
            messages = tuple(event for event in rest if not isinstance(event, Refused | Ended))
        case _:  # the session's own table forbids it
            raise AnswerRefused(RefusalCode.MALFORMED, "it is no session")
    return hello, messages


def _busy_or(refused: HubRefused, response: aiohttp.ClientResponse) -> UplinkError:
    """The refusal; as HubBusy where it says when to come again."""
    wait_s = response.headers.get("Retry-After", "")
    if response.status == HTTPStatus.SERVICE_UNAVAILABLE and _WHOLE_SECONDS.fullmatch(wait_s):
        return HubBusy(str(refused), int(wait_s))
    return refused


def _date_ms(response: aiohttp.ClientResponse) -> int | None:
    try:
        return round(parsedate_to_datetime(response.headers["Date"]).timestamp() * 1000)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
