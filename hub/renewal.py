"""A new identity for a terminal whose storage was restored from an old copy (POST RENEW, over mTLS).

Its old chain cannot go on: numbers that it sealed before would name other facts. So it ends where the hub
holds it, and so does every identity that the terminal was given since it was paired, and one of another that
had a copy of its storage and has yet to bring what it had: what comes of them later, whoever carries it, may
have been written again and lies in quarantine for an operator.

The new certificate is for the same terminal and name, with the limits of the pairing, except that the credit
that all of these identities gave is taken off its allowance: a new identity is no new allowance, because
nothing can be given beside it. The old TLS certificate ends when the new one is first used, as with a new
pairing.

Nobody has to prove that a storage was restored: a terminal may find that out by itself, offline. So there are
only so many in a day, because each stays on the list of identities that ended. The day is by the hub's clock,
and begins anew where that went back by more than the clocks of several processes of one hub lie apart.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from aiohttp import web
from sqlalchemy import Connection

from crdt.certificate import AuthorCertificate, Limits, Role
from crdt.errors import ComeAgain, Revoked
from crdt.facts import ReplicaId
from crdt.signing import HASH_BYTES, replica_id
from crdt.store import blocks, papers
from crdt.store.amending import Amendment
from crdt.store.hub import HubLedger
from crdt.store.store import Store
from hub import enrolling, reissues
from hub.authority import Authority, ClientCertificate
from hub.bodies import json_object
from hub.callers import Callers
from hub.enrolled import Enrolled, forgotten_in, public_key_of
from hub.enrolling import key_in_use
from hub.errors import RequestRefused
from hub.events import EventBus, Topic
from hub.ratelimit import RateLimit
from hub.registry import Client
from hub.revoking import Revoker

log = logging.getLogger(__name__)

RATE_WINDOW_S = 3600.0
DAY_MS = 86_400_000
MAX_REISSUED = 900  # blocks named in one request: more do not fit its body


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the terminal asks for, checked."""

    public_key: bytes
    csr_pem: str
    reissued: Sequence[bytes]  # hashes of quarantined blocks of its own whose facts it has written again
    forgotten: AuthorCertificate | None  # of an identity that it was promised, and this hub has forgotten


class _TooMany(RequestRefused):
    """A terminal took as many new identities within a day as any may. `why`: for whoever looks after it."""

    def __init__(self, name: str, most: int, wait_s: int) -> None:
        self.why = (
            f"{name} took {most} new identities within a day, which is the most. Its taps are safe on it. "
            "Look at its storage, or at who else has its keys, and pair it again."
        )
        status, hours = HTTPStatus.TOO_MANY_REQUESTS, -(-wait_s // 3_600)
        super().__init__("too_often", f"{self.why} Else it gets another in {hours:,} h.", status)


class Renewal:
    """The handler of RENEW."""

    def __init__(
        self,
        database: Store,
        authority: Authority,
        ledger: HubLedger,
        revoker: Revoker,
        callers: Callers,
        bus: EventBus,
        rate: RateLimit,
        most_a_day: int,
        now_ms: Callable[[], int],
    ) -> None:
        """`rate`: of one terminal's requests. `most_a_day`: new identities of one, since it was paired."""
        self._database = database
        self._authority = authority
        self._ledger = ledger
        self._revoker = revoker
        self._callers = callers
        self._bus = bus
        self._rate = rate
        self._most_a_day = most_a_day
        self._now_ms = now_ms

    async def renew(self, request: web.Request) -> web.Response:
        """POST RENEW; the same request again, for instance because the answer was lost, is answered again."""
        client = await self._callers.admitted(request)
        wanted = _wanted(await json_object(request))
        self._count(client)
        tls = self._authority.client_certificate(
            wanted.csr_pem, client.terminal, replica_id(wanted.public_key)
        )
        now_ms = self._now_ms()
        try:
            enrolled = await asyncio.wrap_future(
                self._ledger.amend(lambda amendment: self._enrol(amendment, client, wanted, tls, now_ms))
            )
        except _TooMany as refused:
            await asyncio.wrap_future(self._ledger.flag(client.replica, ComeAgain(refused.why), 0))
            raise
        await reissues.settle(self._database, self._ledger, wanted.reissued)
        self._bus.publish(Topic.TERMINALS, (client.terminal.hex(),))
        self._bus.publish(Topic.LEDGER)
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

    def _enrol(
        self, amendment: Amendment, client: Client, wanted: Wanted, tls: ClientCertificate, now_ms: int
    ) -> Enrolled:
        """End the identities so far, and enter the new one with what they leave of the allowance.

        In one transaction, so that of two renewals at once the later one ends the earlier one's identity, and
        none is entered beside a revocation that does not know it. RequestRefused for a key that was used, or
        past the most in a day; Revoked.
        """
        connection, replica = amendment.connection, replica_id(wanted.public_key)
        forgotten = enrolling.enter_forgotten(amendment, client.terminal, wanted.forgotten)
        authors = amendment.authors()
        former = enrolling.former(connection, authors, client.terminal)
        listed = papers.revocations(connection)
        if client.replica in listed.revoked:
            raise Revoked(f"The terminal {client.name} was revoked.")
        known = _known(connection, client, replica)
        if known is None:
            self._check_day(connection, client, now_ms)
        enrolling.renew(connection, client, replica, tls, now_ms)
        paired = enrolling.since_pairing(connection, client.replica) - {replica}
        enrolling.end_unused(connection, paired | forgotten)
        unsaid = enrolling.unsaid(connection, authors, client.terminal, former)
        self._revoker.replace(amendment, paired | forgotten | unsaid)
        mine = [one for one in former if authors[one].terminal == client.terminal]
        unpaired = forgotten | enrolling.unpaired(connection, mine)
        author = known or self._author(connection, client, paired, unpaired, wanted.public_key)
        amendment.enrol(author)
        reissues.note(connection, client.terminal, wanted.reissued)
        return Enrolled(client.terminal, author, tls, former)

    def _check_day(self, connection: Connection, client: Client, now_ms: int) -> None:
        given_ms = enrolling.renewed(connection, client.replica, self._most_a_day, now_ms)
        wait_ms = given_ms[-1] + DAY_MS - now_ms if len(given_ms) == self._most_a_day else 0
        if wait_ms > 0:
            raise _TooMany(client.name, self._most_a_day, wait_ms // 1000 + 1)

    def _author(
        self,
        connection: Connection,
        client: Client,
        paired: Collection[ReplicaId],
        unpaired: Collection[ReplicaId],
        public_key: bytes,
    ) -> AuthorCertificate:
        """A new author's certificate. `paired`: the identities since the pairing, which end: they give no
        credit any more. `unpaired`: those of which the hub has forgotten the pairing: what they were allowed
        counts for nothing, and what they gave is off the allowance too."""
        authors = blocks.authors_of(connection, list(paired))
        if client.replica not in authors:
            raise RequestRefused("no_author", "This identity is not known here; pair the terminal again.")
        chains = blocks.chains_of(connection, sorted({*paired, *unpaired}))
        given_minor = sum(chain.credit_minor for chain in chains.values())
        # The pairing's limits: each renewal's are those, with less allowance.
        limits = max((author.limits for author in authors.values()), key=lambda one: one.allowance_minor)
        return self._authority.terminal_certificate(
            client.terminal, client.name, public_key, _less(limits, given_minor)
        )


def _known(connection: Connection, client: Client, replica: ReplicaId) -> AuthorCertificate | None:
    """The certificate of a repeated request's key: a key is certified once. RequestRefused when that key is
    somebody's, or its identity has ended already."""
    known = blocks.authors_of(connection, [replica]).get(replica)
    if known is None:
        return None
    theirs = (known.terminal, known.role) != (client.terminal, Role.TERMINAL)
    if theirs or replica == client.replica or replica in papers.revocations(connection).cut_offs:
        raise key_in_use()
    return known


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
    forgotten = forgotten_in(body.get("forgotten"))
    csr_pem = csr if isinstance(csr, str) else ""
    return Wanted(public_key_of(body.get("public_key")), csr_pem, hashes, forgotten)


def _less(limits: Limits, given_minor: int) -> Limits:
    """The limits with the credit that was given already taken off the allowance."""
    return replace(limits, allowance_minor=max(0, limits.allowance_minor - given_minor))
