"""What the terminal says of itself: to the hub's operator with each sync, and to the technician beside it."""

import threading
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from crdt.facts import CardId
from crdt.store.status import Status
from crdt.store.terminal import TerminalLedger
from edge.clock import TerminalClock
from edge.settings import Settings
from edge.terminal import Terminal
from edge.uplink import UplinkStatus

MAX_HISTORY = 20
MAX_FORMER = 32  # identities of before that are named: a status has 4 KiB


class Report:
    """Puts it together. Every method waits for the disk: not for the event loop."""

    def __init__(
        self,
        settings: Settings,
        terminal: Terminal,
        clock: TerminalClock,
        reader: Callable[[], str],
    ) -> None:
        """`reader` gives the card reader's state in words."""
        self._settings = settings
        self._terminal = terminal
        self._clock = clock
        self._reader = reader
        self._lock = threading.Lock()
        self._sums: tuple[object, dict[str, Any]] = (None, {})

    def for_hub(self) -> dict[str, Any]:
        """Names, numbers and the reader's state; small."""
        return {
            "name": self._settings.terminal_name,
            "route": self._terminal.text("route", self._settings.terminal_route),
            "door": self._terminal.text("door", self._settings.terminal_door),
            "vehicle": self._terminal.text("vehicle", self._settings.terminal_vehicle),
            "version": version("farebox"),
            "reader": self._reader()[:200],
            "clock": asdict(self._clock.read()),
            "dated_from_ms": self._clock.dated_from(),
            **self._numbers(),
        }

    def for_technician(self, uplink: UplinkStatus) -> dict[str, Any]:
        """The same, whom it belongs to, how the uplink stands, and what the ledger adds up to."""
        return {
            **self.for_hub(),
            **self._belongs(),
            **self._ledger_sums(),
            "hub": "" if uplink.hub is None else str(uplink.hub),
            "online": uplink.online,
            "last_sync_at_ms": uplink.last_sync_at_ms,
            "trouble": uplink.trouble,
            "disputed": uplink.disputed,
        }

    def card(self, card: CardId) -> dict[str, Any] | None:
        """What this terminal believes of a card, and its latest facts here; None while it is not paired."""
        enrolment = self._terminal.enrolment
        if enrolment is None:
            return None
        view = enrolment.ledger.view(card)
        return {
            "card": card.hex().upper(),
            "known": view.known,
            "balance_minor": view.balance_minor,
            "currency": "" if enrolment.fares is None else enrolment.fares.currency,
            "exponent": 0 if enrolment.fares is None else enrolment.fares.exponent,
            "hotlisted": view.hotlisted,
            "overdrawn": view.until_paid,
            "last_fare_at_ms": view.last_fare_at_ms,
            "history": [
                {
                    "replica": delta.replica.hex(),
                    "seq": delta.seq,
                    "kind": delta.kind.name.lower(),
                    "amount_minor": delta.amount_minor,
                    "at_ms": delta.at_ms,
                    "route": delta.context.route,
                }
                for delta in enrolment.ledger.history(card, MAX_HISTORY)
            ],
            "digest": self._ledger_sums()["digest"],
        }

    def _numbers(self) -> dict[str, Any]:
        enrolment = self._terminal.enrolment
        if enrolment is None:
            no = dict.fromkeys(("suspended", "revoked"), False)
            return dict.fromkeys((*Status.__annotations__, "fares_version"), 0) | no
        former = [replica.hex() for replica in enrolment.ledger.former(MAX_FORMER)]
        return {**enrolment.ledger.status(), "fares_version": enrolment.fares_version, "former": former}

    def _belongs(self) -> dict[str, Any]:
        enrolment = self._terminal.enrolment
        if enrolment is None:
            return {"paired": False, "fleet": "", "terminal": "", "replica": ""}
        identity = enrolment.identity
        return {
            "paired": True,
            "fleet": identity.fleet.hex(),
            "terminal": identity.certificate.terminal.hex(),
            "replica": identity.replica.hex(),
        }

    def _ledger_sums(self) -> dict[str, Any]:
        """State digest and books, which read every card: made again only when something has changed."""
        enrolment = self._terminal.enrolment
        if enrolment is None:
            return {"digest": "", "balanced": True}
        with self._lock:
            before = _state(enrolment.ledger)
            if before != self._sums[0]:
                digest = enrolment.ledger.digest().hex()
                self._sums = (before, {"digest": digest, "balanced": enrolment.ledger.books().balance})
            return self._sums[1]


def _state(ledger: TerminalLedger) -> object:
    """Different after every change of what the ledger says."""
    return ledger.replica, ledger.status(), ledger.own_head(), ledger.settled()[0]
