"""The tap path, on its own thread: reader -> card -> decision -> durable commit -> light and sound -> uplink.

Green is shown only after the commit has returned, and nothing here waits for the network. The light comes
before the log: a log that is slow to write keeps nobody waiting for it.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from crdt.errors import LedgerError, NotPermitted
from crdt.facts import CardId, CardView, Context, Draft
from edge.clock import Reading, TerminalClock
from edge.decide import Accepted, Reason, Verdict, decide
from edge.terminal import Enrolment, Terminal
from edge.words import (
    HOLD_STILL,
    NO_FARES,
    NOT_PAIRED,
    NOT_PERMITTED,
    READER_FAILED,
    REVOKED,
    STORE_FAILED,
    words_for,
)
from hardware.cards import PresentedCard, Unusable, identify
from hardware.errors import CardError, HardwareError
from hardware.feedback import Feedback, Signal
from hardware.reader import Arrived, Reader, Watcher

LOOK_S = 0.25
"""Longest wait for a card before the thread looks at everything else again."""
READY = (Signal.READY, "")
FAULT_S = 3.0
"""How long a tap that could not be written shows, before the lights show again how the terminal is."""
REOPEN_MIN_S, REOPEN_MAX_S = 1.0, 30.0
"""Waits between attempts to bring a lost reader back."""

ALLOWANCE_SPENT = (
    "A new card was refused: of the opening balances that this terminal may give, %d minor units are left."
    " Known cards ride on. A new pairing (farebox-hub invite) gives it a new allowance."
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the terminal runs by its settings file, for fares and reports; its own document comes before."""

    route: str
    door: str


class TapPath:
    """Takes taps until it is stopped. `start` and `stop` are for another thread; the rest is for any."""

    def __init__(
        self,
        terminal: Terminal,
        clock: TerminalClock,
        open_reader: Callable[[], Reader],
        feedback: Feedback,
        place: Place,
        tapped: Callable[[], object],
        *,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_reader` raises HardwareError when it fails; `tapped` is called after each durable tap."""
        self._terminal = terminal
        self._clock = clock
        self._open_reader = open_reader
        self._feedback = feedback
        self._place = place
        self._tapped = tapped
        self._elapsed_s = elapsed_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="taps")
        self._resting: tuple[Signal, str] | None = None
        self._fault_until_s = elapsed_s()
        self.beat_s = elapsed_s()
        """When the thread last came round, by `elapsed_s`; for the watchdog."""
        self.reader = "starting"
        """The reader's state in words: "ready", or what is wrong with it."""

    def start(self) -> None:
        """Begin to take taps."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the tap in hand, give the reader back; returns when the thread has ended."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; it ends by itself only on a bug."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            wait_s = REOPEN_MIN_S
            while not self._stopping.is_set():
                try:
                    with closing(self._open_reader()) as reader:
                        wait_s = REOPEN_MIN_S
                        self._serve(reader)
                except HardwareError as error:
                    self._reader_lost(error)
                    self._pause(wait_s)
                    wait_s = min(wait_s * 2, REOPEN_MAX_S)
        except Exception:
            log.exception("the tap path ended: this is a bug, please report it")
            self._feedback.show(Signal.OUT_OF_SERVICE, STORE_FAILED)

    def _serve(self, reader: Reader) -> None:
        watcher = Watcher(reader)
        self.reader = "ready"
        self._resting = None
        while not self._stopping.is_set():
            self.beat_s = self._elapsed_s()
            self._rest()
            try:
                events = watcher.step(LOOK_S)
            except CardError as error:
                self._answer(Signal.TRY_AGAIN, HOLD_STILL)
                log.info("card not read: %s", error)
                continue
            for event in events:
                if isinstance(event, Arrived):
                    self._present(event.card)

    def _pause(self, wait_s: float) -> None:
        until_s = self._elapsed_s() + wait_s
        while not self._stopping.wait(LOOK_S) and self._elapsed_s() < until_s:
            self.beat_s = self._elapsed_s()

    def _reader_lost(self, error: HardwareError) -> None:
        news = self.reader != str(error)
        self.reader = str(error)
        self._feedback.show(Signal.OUT_OF_SERVICE, READER_FAILED)
        if news:
            log.error("card reader lost: %s", error)

    def _rest(self) -> None:
        """Show what the terminal shows while nobody taps, when that has changed."""
        resting = self._resting_signal()
        if resting == READY and self._elapsed_s() < self._fault_until_s:
            return
        if resting != self._resting:
            self._resting = resting
            self._feedback.show(*resting)

    def _resting_signal(self) -> tuple[Signal, str]:
        enrolment = self._terminal.enrolment
        if self._terminal.failed:
            return Signal.OUT_OF_SERVICE, STORE_FAILED
        if enrolment is None:
            return Signal.OUT_OF_SERVICE, NOT_PAIRED
        if enrolment.ledger.revoked:
            return Signal.OUT_OF_SERVICE, REVOKED
        if enrolment.fares is None:
            return Signal.OUT_OF_SERVICE, NO_FARES
        return READY

    def _answer(self, signal: Signal, text: str) -> None:
        """Show something that gives way to READY by itself, unless the terminal is not ready."""
        at_rest = self._resting_signal()
        self._resting = at_rest
        self._feedback.show(*((signal, text) if at_rest == READY else at_rest))

    def _present(self, presented: PresentedCard) -> None:
        card = identify(presented)
        if isinstance(card, Unusable):
            self._answer(Signal.REFUSED, card.reason)
            _log_tap(presented.uid, result="unusable", reason=card.reason)
            return
        try:
            with self._terminal.using() as enrolment:
                if enrolment is None or enrolment.fares is None or enrolment.ledger.revoked:
                    self._out_of_service(card)
                    return
                self._tap(CardId(card), enrolment)
        except NotPermitted as error:
            self._fault(NOT_PERMITTED)
            _log_tap(card, result="failed", reason=str(error))
        except LedgerError as error:
            self._fault(STORE_FAILED)
            log.exception("tap not written")
            _log_tap(card, result="failed", reason=str(error))

    def _fault(self, text: str) -> None:
        """Show that this tap failed; it need not be the terminal that did."""
        self._fault_until_s = self._elapsed_s() + FAULT_S
        self._resting = None
        self._feedback.show(Signal.OUT_OF_SERVICE, text)

    def _out_of_service(self, card: bytes) -> None:
        signal, text = self._resting_signal()
        self._feedback.show(signal, text)
        _log_tap(card, result="out of service", reason=text)

    def _tap(self, card: CardId, enrolment: Enrolment) -> None:
        fares = enrolment.fares
        if fares is None:
            return
        began_s, now = self._elapsed_s(), self._clock.read()
        route = enrolment.document.text("route") or self._place.route
        credit_left = enrolment.ledger.credit_left()

        def choose(view: CardView) -> tuple[tuple[Draft, ...], Verdict]:
            if view.last_fare_at_ms is not None:
                view = view._replace(last_fare_at_ms=self._clock.as_now(view.last_fare_at_ms))
            verdict = decide(view, fares, route, now.at_ms, credit_left)
            return (verdict.drafts if isinstance(verdict, Accepted) else ()), verdict

        verdict = enrolment.ledger.transact(card, choose, now.at_ms, _context(route, now))
        # Durable from here on, and only from here on.
        self._resting = READY
        self._feedback.show(*words_for(verdict, fares))
        took_ms = (self._elapsed_s() - began_s) * 1000
        _log_verdict(card, verdict, now, took_ms)
        if isinstance(verdict, Accepted):
            self._tapped()
        elif verdict.reason is Reason.NO_ALLOWANCE:
            log.warning(ALLOWANCE_SPENT, credit_left)


def _context(route: str, now: Reading) -> Context:
    return Context(route=route, clock_epoch=now.epoch, clock_error_ms=now.error_ms)


def _log_verdict(card: CardId, verdict: Verdict, now: Reading, took_ms: float) -> None:
    clock = {"at_ms": now.at_ms, "clock_error_ms": now.error_ms, "took_ms": round(took_ms, 2)}
    if isinstance(verdict, Accepted):
        notes = sorted(verdict.notes)
        balance = verdict.balance_after_minor
        _log_tap(
            card,
            result="accepted",
            fare_minor=verdict.fare_minor,
            balance_minor=balance,
            notes=notes,
            **clock,
        )
    else:
        _log_tap(card, result="refused", reason=verdict.reason, balance_minor=verdict.balance_minor, **clock)


def _log_tap(card: bytes, **fields: object) -> None:
    """One line a tap, JSON after the word "tap"."""
    log.info("tap %s", json.dumps({"card": card.hex(), **fields}))
