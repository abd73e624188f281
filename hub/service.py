"""What an operator may do: invite, block, top up, revoke. Used by pages and command line.

Every method is a coroutine that never blocks the event loop, and raises RequestRefused (with a sentence and
an HTTP status) for what it does not do. Amounts come in as text and are parsed exactly;
no float touches money.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from crdt.certificate import AuthorCertificate, Limits
from crdt.errors import RefusalCode
from crdt.facts import Draft, FleetId, Kind, ReplicaId
from crdt.pairing import Entropy, PairingCode
from crdt.signing import SigningKey
from crdt.store.hub import HubLedger
from crdt.store.recording import Money
from crdt.store.store import Store
from hub import restoring
from hub.adopting import adopt
from hub.cardids import card_text, parse_card
from hub.errors import RequestRefused, SetupError
from hub.events import EventBus, Topic
from hub.fleet_desk import FleetDesk
from hub.fleettext import format_money, parse_money
from hub.invites import Invite, Invites
from hub.operators import set_password
from hub.registry import Registry
from hub.revoking import Revoked, Revoker
from hub.sealing import Sealer

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Booking:
    """A top-up that is booked. `repeated`: this request id had been booked before, nothing was added."""

    card: str
    amount_minor: int  # as asked for
    balance_minor: int
    repeated: bool


@dataclass(frozen=True, slots=True)
class Author:
    """Who signs in the hub's name, and what it lets newly paired terminals write."""

    fleet: FleetId
    key: SigningKey
    certificate: AuthorCertificate
    enrolment: Limits


class Service:
    """The write side of the hub."""

    def __init__(
        self,
        database: Store,
        ledger: HubLedger,
        author: Author,
        registry: Registry,
        invites: Invites,
        bus: EventBus,
        now_ms: Callable[[], int],
        entropy: Entropy,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._invites = invites
        self._bus = bus
        self._now_ms = now_ms
        self._entropy = entropy
        sealer = Sealer(author.fleet, author.key)
        self.revoker = Revoker(ledger, registry, sealer, now_ms)
        self.fleet = FleetDesk(ledger, sealer, author.enrolment, registry, bus)

    async def invite(self) -> Invite:
        """A fresh pairing code, good for ten minutes, three tries and one terminal."""
        return await self._invites.create(
            lambda nameplate: str(PairingCode.new(int(nameplate), self._entropy)), self._now_ms()
        )

    async def open_invites(self) -> list[Invite]:
        """The codes that are still good, newest first."""
        return await self._invites.open(self._now_ms())

    async def top_up(self, card: str, amount: str, request_id: str) -> Booking:
        """Book `amount` (a decimal such as "12.50" in the fleet's currency) once per `request_id`.

        `request_id`: 8 to 40 characters made by the caller (a page puts a fresh one into its form), so that
        a repeated or resent request books once. Used again for another card or amount it is refused (409).
        """
        card_id = parse_card(card)
        if not _REQUEST_ID.fullmatch(request_id):
            raise RequestRefused(
                "request", "A request id has 8 to 40 letters, digits, dots, dashes or underscores."
            )
        exponent = (await self.fleet.policy()).exponent
        amount_minor = parse_money(amount, exponent)
        if amount_minor == 0:
            raise RequestRefused("amount", "A top-up puts something on the card: more than zero.")
        wanted = Draft(Kind.TOPUP, amount_minor)
        booking = await asyncio.wrap_future(
            self._ledger.append(card_id, [wanted], self._now_ms(), request=request_id)
        )
        if booking.booked != ((card_id, wanted.kind, wanted.amount_minor),):
            raise _used(request_id, booking.booked[0], exponent)
        return Booking(card_text(card_id), amount_minor, booking.state.balance_minor, booking.repeated)

    async def set_blocked(self, card: str, blocked: bool) -> None:
        """Put a card on the hotlist or take it off."""
        await asyncio.wrap_future(self._ledger.set_hotlisted(parse_card(card), blocked))

    async def set_password(self, password: str) -> None:
        """A new operator's password; every session ends."""
        try:
            await asyncio.to_thread(set_password, self._database, password)
        except SetupError as error:
            raise RequestRefused("password", str(error)) from error

    async def revoke(self, terminal: str, cut_off: int | None = None) -> Revoked:
        """Stop a terminal (by name or hex id) at once, and everything it writes from now on, whoever has it.

        `cut_off`: the last entry of its present identity that counts; None for all that the hub holds now.
        """
        return self._published(await self.revoker.revoke(terminal, cut_off))

    async def accept(self, terminal: str, cut_off: int | None = None) -> Revoked:
        """Let what a revoked terminal wrote after its cut-off count: all that is here, or up to `cut_off`."""
        return self._published(await self.revoker.accept(terminal, cut_off))

    async def adopt(self, block: str, *, others: bool = False) -> int:
        """Book what a quarantined block (by hash, hex) says and the ledger has not; how many entries.

        For a terminal that never will: should it all the same, the hub takes its own back. And for the hub's
        own blocks, which nobody writes again. `others`: and all else of its author that waits for that.
        """
        replaced = (await self.revoker.listed()).replaced
        return await adopt(self._database, self._ledger, replaced, block, others=others)

    async def dismiss(self, replica: str, code: str) -> bool:
        """Take a flag off an author, because somebody has seen to it; whether there was one."""
        try:
            flag = ReplicaId(bytes.fromhex(replica)), RefusalCode[code.upper()]
        except (ValueError, KeyError):
            raise RequestRefused("no_flag", "There is no such flag.", HTTPStatus.NOT_FOUND) from None
        return await asyncio.wrap_future(self._ledger.dismiss_flag(*flag))

    async def give_up(self, replica: str) -> None:
        """Wait no longer for entries of an author that nobody will bring any more, known or not."""
        try:
            author = ReplicaId(bytes.fromhex(replica))
        except ValueError:
            author = ReplicaId(b"")
        if not await asyncio.wrap_future(self._ledger.give_up(author)):
            raise RequestRefused("not_waiting", "Nothing is missing of this author.", HTTPStatus.NOT_FOUND)
        self._bus.publish(Topic.LEDGER)

    async def take_notice_away(self) -> None:
        """An operator has read that the hub was put back from a backup."""
        await asyncio.wrap_future(self._database.write(restoring.take_away))
        self._bus.publish(Topic.LEDGER)

    def _published(self, revoked: Revoked) -> Revoked:
        self._bus.publish(Topic.TERMINALS)
        self._bus.publish(Topic.LEDGER)
        return revoked


def _used(request_id: str, booked: Money, exponent: int) -> RequestRefused:
    card, _, amount_minor = booked
    return RequestRefused(
        "request_used",
        f"The request {request_id} has booked {format_money(amount_minor, exponent)} on {card_text(card)} "
        "before. Another top-up needs a new request id: open the card's page anew, or give a new --request.",
        HTTPStatus.CONFLICT,
    )
