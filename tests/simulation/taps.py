"""Taps on a simulated terminal: the real decision and the real clock, as edge.taps uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crdt.documents import SignedDocument
from crdt.facts import CardId, CardView, Context, Draft
from edge.clock import Reading, TerminalClock
from edge.decide import Accepted, Verdict, decide
from tests.simulation.authors import FARES, settings_in
from tests.simulation.oracle import Fact, Oracle, expect

if TYPE_CHECKING:
    from tests.simulation.buses import Bus

ROUTE: Final = "12"


class Taps:
    """Of one terminal: its fares, and its time."""

    clock: TerminalClock

    def __init__(self, bus: Bus, oracle: Oracle) -> None:
        self.fares = FARES[0]
        self.fares_version = 0
        self._bus = bus
        self._oracle = oracle
        self._epoch = 0
        self._last = Reading(0, 0, 0)

    def start(self) -> None:
        """Begin another epoch of the clock, not before the ledger's last fact."""
        wall = self._bus.wall
        self._epoch += 1
        self.clock = TerminalClock(
            floor_ms=self._bus.ledger.last_at_ms() or 0,
            epoch=self._epoch,
            save_epoch=self._save_epoch,
            save_floor=lambda _floor_ms: None,  # it says nothing of it
            wall_ms=lambda: wall.wall_ms,
            elapsed_ms=lambda: wall.elapsed_ms,
            synchronised_ms=lambda: wall.synchronised_ms,
        )

    def adopt(self, document: SignedDocument) -> bool:
        """Go by the hub's settings where they are newer; whether they are."""
        fares = settings_in(document.body)
        if document.version <= self.fares_version:
            return False
        self._bus.ledger.put_document(document)
        self.fares, self.fares_version = fares, document.version
        return True

    def go_back(self, version: int) -> None:
        """The storage was put back: what it knows is this version of the settings."""
        self.fares, self.fares_version = FARES[(version - 1) % len(FARES)], version

    def tap(self, card: CardId) -> Verdict:
        """Present a card: decide, commit, and only then say so."""
        bus, now = self._bus, self.clock.read()
        self._check_time(now)
        context = Context(route=ROUTE, trip=bus.name, clock_epoch=now.epoch, clock_error_ms=now.error_ms)

        def choose(view: CardView) -> tuple[tuple[Draft, ...], Verdict]:
            if view.last_fare_at_ms is not None:
                view = view._replace(last_fare_at_ms=self.clock.as_now(view.last_fare_at_ms))
            verdict = decide(view, self.fares, ROUTE, now.at_ms)
            drafts = verdict.drafts if isinstance(verdict, Accepted) else ()
            facts = [Fact(card, draft.kind, draft.amount_minor, now.at_ms, context) for draft in drafts]
            self._oracle.begin(bus.writes_as, facts)
            return drafts, verdict

        verdict = bus.ledger.transact(card, choose, now.at_ms, context)
        self._check_green(self._oracle.acknowledge(bus.writes_as))
        return verdict

    def _check_green(self, count: int) -> None:
        """What was just acknowledged is on the disk (invariant 1)."""
        bus = self._bus
        if count:
            last = self._oracle.facts[bus.writes_as][-1]
            expect(bus.record.last_open() == last, f"{bus.name} said yes to what is not on its disk")
        expect(not bus.disk.in_transaction, f"{bus.name} said yes before its commit")

    def _check_time(self, now: Reading) -> None:
        if now.epoch == self._last.epoch:
            expect(now.at_ms >= self._last.at_ms, f"{self._bus.name}'s time ran backwards within an epoch")
        self._last = now

    def _save_epoch(self, epoch: int) -> None:
        self._epoch = epoch
