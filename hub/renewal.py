"""A new identity for a terminal whose storage was restored from an old copy (POST RENEW, over mTLS).

Its old chain cannot go on: numbers that it sealed before would name other facts. So it ends where the hub
holds it, and so does every identity that the terminal was given since it was paired: what comes of them
later, whoever carries it, may have been written again and lies in quarantine for an operator.

The new certificate is for the same terminal and name, with the limits of the pairing, except that the credit
that all of these identities gave is taken off its allowance: a new identity is no new allowance, because
nothing can be given beside it. The old TLS certificate ends when the new one is first used, as with a new
pairing.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Protocol

from aiohttp import web
from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate, Limits, Role
from crdt.facts import ReplicaId
from crdt.signing import HASH_BYTES, replica_id
from crdt.store.blocks import chains_of
from crdt.store.hub import HubLedger
from crdt.store.store import Store
from hub import registry, reissues
from hub.authority import Authority
from hub.bodies import json_object
from hub.callers import Callers
from hub.enrolled import Enrolled, public_key_of
from hub.errors import RequestRefused
from hub.events import EventBus, Topic
from hub.ratelimit import RateLimit
from hub.registry import Client, key_in_use

log = logging.getLogger(__name__)

RATE_WINDOW_S = 3600.0
MAX_REISSUED = 900  # blocks named in one request: more do not fit its body


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the terminal asks for, checked."""

    public_key: bytes
    csr_pem: str
    reissued: Sequence[bytes]  # hashes of quarantined blocks of its own whose facts it has written again


class Ending(Protocol):
    """What a renewal needs of who keeps the list of identities that ended; see `hub.revoking.Revoker`."""

    async def replace(self, replicas: Collection[ReplicaId]) -> None:
        """End these for everybody, where the hub holds them now."""

    async def replaced(self) -> AbstractSet[ReplicaId]:
        """Those that were ended so."""


class Renewal:
    """The handler of RENEW."""

    def __init__(
        self,
        database: Store,
        authority: Authority,
        ledger: HubLedger,
        ending: Ending,
        callers: Callers,
        bus: EventBus,
        rate: RateLimit,
        now_ms: Callable[[], int],
    ) -> None:
        self._database = database
        self._authority = authority
        self._ledger = ledger
        self._ending = ending
        self._callers = callers
        self._bus = bus
        self._rate = rate
        self._now_ms = now_ms

    async def renew(self, request: web.Request) -> web.Response:
        """POST RENEW; the same request again, for instance because the answer was lost, is answered again."""
        client = await self._callers.admitted(request)
        wanted = _wanted(await json_object(request))
        self._count(client)
        enrolled = await self._enrol(client, wanted)
        await asyncio.wrap_future(self._ledger.enrol(enrolled.author))
        await reissues.settle(self._database, self._ledger, wanted.reissued)
        self._bus.publish(Topic.TERMINALS, (client.terminal.hex(),))
        log.warning("%s has a new identity: its storage was restored from an old copy", client.name)
        return web.json_response(enrolled.answer(self._authority))

    def _count(self, client: Client) -> None:
        wait_s = self._rate.wait_s(client.terminal.hex())
        if wait_s:
            raise RequestRefused(
                "too_often",
                f"{client.name} has taken too many new identities. Its taps are safe on it. "
                f"Look at its storage; the hub gives it another in {wait_s} s.",
                HTTPStatus.TOO_MANY_REQUESTS,
            )
        self._rate.count(client.terminal.hex())

    async def _enrol(self, client: Client, wanted: Wanted) -> Enrolled:
        known = await self._known(client, replica_id(wanted.public_key))
        # Before anything ends: a request that is not right changes nothing.
        tls = self._authority.client_certificate(
            wanted.csr_pem, client.terminal, replica_id(wanted.public_key)
        )
        before = await asyncio.wrap_future(
            self._database.read(lambda connection: registry.since_pairing(connection, client.replica))
        )
        before = (before | {client.replica}) - {replica_id(wanted.public_key)}
        await self._ending.replace(before)
        author = known or await self._author(client, before, wanted.public_key)
        now_ms = self._now_ms()

        def work(connection: Connection) -> None:
            registry.renew(connection, client, author.replica, tls, now_ms)
            reissues.note(connection, client.terminal, wanted.reissued)

        await asyncio.wrap_future(self._database.write(work))
        return Enrolled(client.terminal, author, tls)

    async def _known(self, client: Client, replica: ReplicaId) -> AuthorCertificate | None:
        """The certificate of a repeated request's key: a key is certified once. RequestRefused when that key
        is somebody's, or its identity has ended already."""
        known = self._ledger.authors().get(replica)
        if known is None:
            return None
        theirs = (known.terminal, known.role) != (client.terminal, Role.TERMINAL)
        if theirs or replica == client.replica or replica in await self._ending.replaced():
            raise key_in_use()
        return known

    async def _author(
        self, client: Client, before: Collection[ReplicaId], public_key: bytes
    ) -> AuthorCertificate:
        """A new author's certificate. `before`: the identities that ended, which give no credit any more."""
        authors = self._ledger.authors()
        if client.replica not in authors:
            raise RequestRefused("no_author", "This identity is not known here; pair the terminal again.")
        chains = await asyncio.wrap_future(self._database.read(lambda sql: chains_of(sql, list(before))))
        given_minor = sum(chain.credit_minor for chain in chains.values())
        # The pairing's limits: each renewal's are those, with less allowance.
        limits = max(
            (authors[each].limits for each in before if each in authors),
            key=lambda one: one.allowance_minor,
        )
        return self._authority.terminal_certificate(
            client.terminal, client.name, public_key, _less(limits, given_minor)
        )


def _wanted(body: dict[str, Any]) -> Wanted:
    csr, reissued = body.get("csr"), body.get("reissued", [])
    try:
        hashes = [bytes.fromhex(each) for each in reissued] if isinstance(reissued, list) else [b""]
    except (TypeError, ValueError):
        hashes = [b""]
    if len(hashes) > MAX_REISSUED or any(len(each) != HASH_BYTES for each in hashes):
        raise RequestRefused(
            "reissued", f"`reissued` is a list of at most {MAX_REISSUED} hashes of blocks, in hex."
        )
    return Wanted(public_key_of(body.get("public_key")), csr if isinstance(csr, str) else "", hashes)


def _less(limits: Limits, given_minor: int) -> Limits:
    """The limits with the credit that was given already taken off the allowance."""
    return replace(limits, allowance_minor=max(0, limits.allowance_minor - given_minor))
