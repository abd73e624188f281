"""What operators see and change of the fleet's settings: fares and policy."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from crdt.certificate import Limits
from crdt.documents import FLEET_DOCUMENT, FleetDocument, SignedDocument
from crdt.errors import InputRefused
from crdt.fleet import FleetSettings
from crdt.store.amending import Amendment
from crdt.store.hub import HubLedger
from hub import published
from hub.errors import RequestRefused
from hub.events import EventBus, Topic
from hub.fleettext import as_text, format_money, from_text
from hub.registry import Registry
from hub.sealing import Sealer


@dataclass(frozen=True, slots=True)
class FleetView:
    """The settings as text by name (what `FleetDesk.change` takes, see hub.fleettext), and their version."""

    values: Mapping[str, str]
    version: int
    currency: str
    exponent: int


class FleetDesk:
    """Sees and changes them. The coroutines never block the event loop; they raise RequestRefused."""

    def __init__(
        self, ledger: HubLedger, sealer: Sealer, enrolment: Limits, registry: Registry, bus: EventBus
    ) -> None:
        """`enrolment`: what newly paired terminals may write."""
        self._ledger = ledger
        self._sealer = sealer
        self._enrolment = enrolment
        self._registry = registry
        self._bus = bus
        self._known_settings: tuple[int, FleetSettings] | None = None  # of this version

    async def show(self) -> FleetView:
        """Fares and policy."""
        version, settings = await self._current()
        return FleetView(as_text(settings), version, settings.currency, settings.exponent)

    async def policy(self) -> FleetSettings:
        """Fares and policy, as values."""
        return (await self._current())[1]

    async def change(self, changes: Mapping[str, str]) -> FleetView:
        """Change fares or policy; the names are those of `show().values`."""
        while not await self._change(changes):
            pass  # somebody else has changed it meanwhile, perhaps in another process: on top of theirs
        self._bus.publish(Topic.FLEET)
        return await self.show()

    async def enrolment(self) -> Limits:
        """The limits of a terminal that is paired now.

        RequestRefused when the fleet's fares are beyond them: each of its taps would be refused.
        """
        _, settings = await self._current()
        self._check_enrolment(settings)
        return self._enrolment

    async def _change(self, changes: Mapping[str, str]) -> bool:
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
            version = self._sealer.put(amendment, FLEET_DOCUMENT, changed.body).version
            amendment.set_floor(changed.settings.floor_minor)
            published.note(amendment.connection, version, changed.settings)
            return True

        return await asyncio.wrap_future(self._ledger.amend(work))

    async def _current(self) -> tuple[int, FleetSettings]:
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
        _check_limits(settings, self._enrolment, "Terminals are paired", "start the hub again first")


def _changed(document: SignedDocument, wanted: Mapping[str, object]) -> FleetDocument:
    try:
        return FleetDocument.load(document.body).with_changes(wanted)
    except InputRefused as error:
        raise RequestRefused("setting", f"Nothing was changed: {error}.") from error


def _exponent_after(changes: Mapping[str, str], settings: FleetSettings) -> int:
    """The exponent that the amounts in `changes` are written in."""
    exponent = from_text({k: v for k, v in changes.items() if k == "exponent"}, 0).get("exponent")
    return exponent if isinstance(exponent, int) and 0 <= exponent <= 4 else settings.exponent


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
