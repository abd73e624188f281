"""What an operator may do: invite, block, top up, revoke, set fares. Used by pages and command line.

Every method is a coroutine that never blocks the event loop, and raises RequestRefused (with a sentence and
an HTTP status) for what it does not do. Amounts come in as text and are parsed exactly;
no float touches money.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from crdt.certificate import AuthorCertificate, Limits
from crdt.documents import FLEET_DOCUMENT, FleetDocument, SignedDocument
from crdt.errors import InputRefused, RefusalCode
from crdt.facts import Draft, FleetId, Kind, ReplicaId
from crdt.fleet import FleetSettings
from crdt.pairing import Entropy, PairingCode
from crdt.signing import SigningKey
from crdt.store.amending import Amendment
from crdt.store.hub import HubLedger
from crdt.store.recording import Money
from crdt.store.store import Store
from hub import published, restoring
from hub.adopting import adopt
from hub.errors import RequestRefused, SetupError
from hub.events import EventBus, Topic
from hub.fleettext import as_text, format_money, from_text, parse_money
from hub.invites import Invite, Invites
from hub.operators import set_password
from hub.overview import card_text, parse_card
from hub.registry import Registry
from hub.revoking import Revoked, Revoker
from hub.sealing import Sealer

__all__ = ["Booking", "FleetView", "Invite", "Service", "format_money"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Booking:
    """A top-up that is booked. `repeated`: this request id had been booked before, nothing was added."""

    card: str
    amount_minor: int  # as asked for
    balance_minor: int
    repeated: bool


@dataclass(frozen=True, slots=True)
class FleetView:
    """The fleet's settings as text by name (what `set_fleet` takes, see hub.fleettext), and their version."""

    values: Mapping[str, str]
    version: int
    currency: str
    exponent: int


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
        self._author = author
        self._registry = registry
        self._invites = invites
        self._bus = bus
        self._now_ms = now_ms
        self._entropy = entropy
        self._sealer = Sealer(author.fleet, author.key)
        self.revoker = Revoker(ledger, registry, self._sealer, now_ms)
        self._known_settings: tuple[int, FleetSettings] | None = None  # of this version

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
        _, settings = await self._fleet()
        amount_minor = parse_money(amount, settings.exponent)
        if amount_minor == 0:
            raise RequestRefused("amount", "A top-up puts something on the card: more than zero.")
        wanted = Draft(Kind.TOPUP, amount_minor)
        booking = await asyncio.wrap_future(
            self._ledger.append(card_id, [wanted], self._now_ms(), request=request_id)
        )
        if booking.booked != ((card_id, wanted.kind, wanted.amount_minor),):
            raise _used(request_id, booking.booked[0], settings.exponent)
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

    async def dismiss(self, replica: str, code: str) -> None:
        """Take a flag off an author, because somebody has seen to it."""
        try:
            flag = ReplicaId(bytes.fromhex(replica)), RefusalCode[code.upper()]
        except (ValueError, KeyError):
            raise RequestRefused("no_flag", "There is no such flag.", HTTPStatus.NOT_FOUND) from None
        await asyncio.wrap_future(self._ledger.dismiss_flag(*flag))

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

    async def enrolment(self) -> Limits:
        """The limits of a terminal that is paired now.

        RequestRefused when the fleet's fares are beyond them: each of its taps would be refused.
        """
        _, settings = await self._fleet()
        self._check_enrolment(settings)
        return self._author.enrolment

    async def fleet(self) -> FleetView:
        """Fares and policy."""
        version, settings = await self._fleet()
        return FleetView(as_text(settings), version, settings.currency, settings.exponent)

    async def policy(self) -> FleetSettings:
        """Fares and policy, as values."""
        return (await self._fleet())[1]

    async def set_fleet(self, changes: Mapping[str, str]) -> FleetView:
        """Change fares or policy; the names are those of `fleet().values`."""
        while not await self._change_fleet(changes):
            pass  # somebody else has changed it meanwhile, perhaps in another process: on top of theirs
        self._bus.publish(Topic.FLEET)
        return await self.fleet()

    async def _change_fleet(self, changes: Mapping[str, str]) -> bool:
        """Change the document as it is now; False when it is another one by then, and nothing was changed."""
        document = await self._document()
        exponent = _exponent_after(changes, await self._settings(document))
        wanted = await asyncio.to_thread(from_text, changes, exponent)  # it looks up time zones
        await self._check_currency(wanted)
        changed = await asyncio.to_thread(_changed, document, wanted)
        await self._check_enrolments(changed.settings)
        self._check_enrolment(changed.settings)

        def work(amendment: Amendment) -> bool:
            if amendment.document(FLEET_DOCUMENT) != document:
                return False
            version = self._sealer.put(amendment, FLEET_DOCUMENT, changed.body)
            amendment.set_floor(changed.settings.floor_minor)
            published.note(amendment.connection, version, changed.settings)
            return True

        return await asyncio.wrap_future(self._ledger.amend(work))

    def _published(self, revoked: Revoked) -> Revoked:
        self._bus.publish(Topic.TERMINALS)
        self._bus.publish(Topic.LEDGER)
        return revoked

    async def _fleet(self) -> tuple[int, FleetSettings]:
        document = await self._document()
        return document.version, await self._settings(document)

    async def _settings(self, document: SignedDocument) -> FleetSettings:
        known = self._known_settings
        if known is None or known[0] != document.version:
            loaded = await asyncio.to_thread(FleetDocument.load, document.body)
            known = self._known_settings = document.version, loaded.settings
        return known[1]

    async def _document(self) -> SignedDocument:
        document = await asyncio.wrap_future(self._ledger.document(FLEET_DOCUMENT))
        if document is None:
            raise RequestRefused("fleet", "The fleet's settings are missing.", HTTPStatus.SERVICE_UNAVAILABLE)
        return document

    async def _check_currency(self, wanted: Mapping[str, object]) -> None:
        """Refuse another currency once there is money: every balance would mean something else."""
        cards = await asyncio.wrap_future(self._ledger.cards(limit=1))
        if cards and wanted.keys() & {"currency", "exponent"}:
            raise RequestRefused("currency", "The currency can be set only before the first card is met.")

    async def _check_enrolments(self, settings: FleetSettings) -> None:
        """Refuse fares that a paired terminal may not write: its taps would be refused here."""
        authors = self._ledger.authors()
        for terminal in await self._registry.terminals():
            author = authors.get(terminal.replica)
            if author is None or terminal.revoked_ms is not None:
                continue
            _check_limits(
                settings, author.limits, f"{terminal.name} was paired", "pair the terminal again first"
            )

    def _check_enrolment(self, settings: FleetSettings) -> None:
        """Refuse fares that the next terminal to be paired may not write."""
        _check_limits(settings, self._author.enrolment, "Terminals are paired", "start the hub again first")


def _changed(document: SignedDocument, wanted: Mapping[str, object]) -> FleetDocument:
    try:
        return FleetDocument.load(document.body).with_changes(wanted)
    except InputRefused as error:
        raise RequestRefused("setting", f"Nothing was changed: {error}.") from error


def _exponent_after(changes: Mapping[str, str], settings: FleetSettings) -> int:
    """The exponent that the amounts in `changes` are written in."""
    exponent = from_text({k: v for k, v in changes.items() if k == "exponent"}, 0).get("exponent")
    return exponent if isinstance(exponent, int) and 0 <= exponent <= 4 else settings.exponent


def _used(request_id: str, booked: Money, exponent: int) -> RequestRefused:
    card, _, amount_minor = booked
    return RequestRefused(
        "request_used",
        f"The request {request_id} has booked {format_money(amount_minor, exponent)} on {card_text(card)} "
        "before. Another top-up needs a new request id: open the card's page anew, or give a new --request.",
        HTTPStatus.CONFLICT,
    )


def _check_limits(settings: FleetSettings, limits: Limits, whose: str, remedy: str) -> None:
    """RequestRefused when a terminal with these limits could not write these fares and openings."""
    fare_minor = max(settings.flat_fare_minor, *settings.route_fares.values(), 0)
    for amount_minor, most_minor, what, side in (
        (fare_minor, limits.max_debit_minor, "fare", "debit"),
        (settings.opening_balance_minor, limits.max_credit_minor, "opening balance", "credit"),
    ):
        if amount_minor > most_minor:
            most, asked = (format_money(each, settings.exponent) for each in (most_minor, amount_minor))
            raise RequestRefused(
                "limit",
                f"{whose} for a {what} of at most {most}, and the fleet's is {asked}. "
                f"Raise enrolment.max_{side}_minor in the hub's settings and {remedy}.",
                HTTPStatus.CONFLICT,
            )
