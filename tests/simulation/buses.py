"""A terminal on a bus: a real ledger, the real decision and clock, and the real sync run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from crdt.documents import SignedDocument
from crdt.facts import CardId, CardView, Context, Draft, ReplicaId
from crdt.store.terminal import TerminalLedger
from edge.clock import Reading, TerminalClock
from edge.decide import Accepted, Verdict, decide
from edge.errors import UplinkError
from edge.sync import Delivery, Exchange, Outcome, Sync
from tests.simulation.authors import FARES, HOME, Author, author, settings_in
from tests.simulation.disks import empty_disk
from tests.simulation.inline_loop import InlineLoop
from tests.simulation.oracle import NOTHING, Fact, Oracle, Snapshot, expect
from tests.simulation.power import Power

ROUTE = "12"


class Wall:
    """The system clock of one terminal, which anything may happen to."""

    def __init__(self, now_ms: int) -> None:
        self.wall_ms = now_ms
        self.elapsed_ms = 0
        self.synchronised_ms: int | None = None

    def pass_time(self, ms: int) -> None:
        """Time passes."""
        self.wall_ms += ms
        self.elapsed_ms += ms


@dataclass(frozen=True)
class Identity:
    """What the sync run asks of `edge.identity.Identity`."""

    author: Author
    fleet = HOME.id
    fleet_public_key = HOME.root.public_key
    hub_certificate = HOME.hub

    @property
    def replica(self) -> ReplicaId:
        """Who the terminal writes as."""
        return self.author.replica

    @property
    def certificate(self) -> Any:
        """The author's certificate."""
        return self.author.certificate


class Bus:
    """One terminal. Also what the sync run asks of `edge.terminal.Terminal` and of an `Enrolment`."""

    def __init__(self, number: int, oracle: Oracle, loop: InlineLoop, now_ms: int) -> None:
        self.number = number
        self.name = f"bus{number}"
        self.power = Power(self.name)
        self.disk = empty_disk()
        self.wall = Wall(now_ms)
        self.author = author(number)
        self.replicas = [self.author.replica]
        self.fares = FARES[0]
        self.fares_version = 0
        self.delivery = Delivery()
        self._oracle = oracle
        self._loop = loop
        self._clock_epoch = 0
        self._last = Reading(0, 0, 0)
        oracle.begin(self.author.replica, [])
        oracle.acknowledge(self.author.replica)
        self.start()

    # ---- What edge.sync sees ----

    @property
    def enrolment(self) -> Bus:
        """The terminal is its own enrolment."""
        return self

    @contextmanager
    def syncing(self, identity: Identity) -> Iterator[None]:
        """Nobody pairs it meanwhile."""
        expect(identity is self.identity, "a sync run went on as an earlier identity")
        yield

    def adopt(self, document: SignedDocument) -> bool:
        """See edge.terminal.Terminal.adopt."""
        fares = settings_in(document.body)
        if document.version <= self.fares_version:
            return False
        self.ledger.put_document(document)
        self.fares, self.fares_version = fares, document.version
        return True

    # ---- What happens to it ----

    @property
    def replica(self) -> ReplicaId:
        """Who it writes as now."""
        return self.author.replica

    def start(self) -> None:
        """Start the program on what is on the disk."""
        self.identity = Identity(self.author)
        self.delivery = Delivery()
        self.database = self.disk.start(self.power, eager=False)
        self.ledger = open_ledger(self.database, self.author)
        self._oracle.found(self.replica, self.ledger.status()["head_seq"])
        self._clock_epoch += 1
        self.clock = TerminalClock(
            floor_ms=self.ledger.last_at_ms() or 0,
            epoch=self._clock_epoch,
            save_epoch=self._save_epoch,
            wall_ms=lambda: self.wall.wall_ms,
            elapsed_ms=lambda: self.wall.elapsed_ms,
            synchronised_ms=lambda: self.wall.synchronised_ms,
        )

    def pair_anew(self) -> None:
        """Give the terminal its next identity; what the old one wrote stays to be sent."""
        self.ledger.seal()
        self.author = author(self.number, len(self.replicas))
        self.replicas.append(self.author.replica)
        self._oracle.begin(self.replica, [])
        self._oracle.acknowledge(self.replica)
        self.start()

    def tap(self, card: CardId) -> Verdict:
        """Present a card, as edge.taps does: decide, commit, and only then say so."""
        now = self.clock.read()
        self._check_time(now)
        context = Context(route=ROUTE, clock_epoch=now.epoch, clock_error_ms=now.error_ms)

        def choose(view: CardView) -> tuple[tuple[Draft, ...], Verdict]:
            if view.last_fare_at_ms is not None:
                view = replace(view, last_fare_at_ms=self.clock.as_now(view.last_fare_at_ms))
            verdict = decide(view, self.fares, ROUTE, now.at_ms)
            drafts = verdict.drafts if isinstance(verdict, Accepted) else ()
            facts = [Fact(card, draft.kind, draft.amount_minor, now.at_ms, context) for draft in drafts]
            self._oracle.begin(self.replica, facts)
            return drafts, verdict

        verdict = self.ledger.transact(card, choose, now.at_ms, context)
        count = self._oracle.acknowledge(self.replica)
        self._check_green(count)
        return verdict

    def sync(self, exchange: Exchange) -> Outcome | UplinkError:
        """One run against the hub, to the end or until something stops it."""
        run = Sync(cast(Any, self), cast(Any, self), exchange, dict[str, Any], self.delivery, retry=True)
        try:
            return self._loop.run(run.run())
        except UplinkError as error:
            return error

    # ---- Promises ----

    def reach(self) -> dict[ReplicaId, int]:
        """How far the disk has every replica's facts, the open segment included."""
        reach: dict[ReplicaId, int] = dict(self.disk.rows("SELECT replica, seq FROM head"))
        last = self.disk.rows("SELECT max(seq) FROM open_delta")[0][0]
        if last is not None:
            reach[self.replica] = last
        return reach

    def installed(self) -> Snapshot:
        """The settlement that shows."""
        series, position = self.disk.rows("SELECT series, position FROM terminal")[0]
        if position == 0:
            return Snapshot()
        snapshot = self._oracle.history.get((series, position))
        expect(snapshot is not None, f"{self.name} has position {position}, which no hub ever had")
        assert snapshot is not None
        return snapshot

    def agrees(self) -> bool:
        """Whether the hub has all of this ledger, and the newest settlement shows."""
        return self.ledger.held()[0] == 0 and self.installed() is self._oracle.hub

    def check(self, cards: Iterable[CardId]) -> None:
        """The view of these cards, and the sums of what is held, are exactly what they have to be."""
        settled, reach = self.installed(), self.reach()
        states = self._oracle.believed(settled, reach)
        for card in cards:
            view = self.ledger.view(card)
            state = states.get(card, NOTHING)
            expect(
                view.balance_minor == sum(state),
                f"{self.name} believes {view.balance_minor} of {card.hex()}, not {sum(state)}",
            )
            expect(view.hotlisted == (card in settled.listed), f"{self.name} has {card.hex()} listed wrongly")
        held = self._oracle.held(settled, reach)
        told = self.ledger.held()
        expect(told == (len(held), sum(fact.amount_minor for fact in held)), f"{self.name} holds {told}")

    def _check_green(self, count: int) -> None:
        """What was just acknowledged is on the disk (invariant 1)."""
        facts = self._oracle.facts[self.replica]
        if count:
            row = self.disk.rows(
                "SELECT card, kind, amount_minor, at_ms FROM open_delta WHERE seq = ?", len(facts)
            )
            expect(row == [facts[-1][:4]], f"{self.name} said yes to what is not on its disk")
        expect(not self.disk.in_transaction, f"{self.name} said yes before its commit")

    def _check_time(self, now: Reading) -> None:
        if now.epoch == self._last.epoch:
            expect(now.at_ms >= self._last.at_ms, f"the time of {self.name} ran backwards within an epoch")
        self._last = now

    def _save_epoch(self, epoch: int) -> None:
        self._clock_epoch = epoch


def open_ledger(database: Any, who: Author) -> TerminalLedger:
    """The ledger of this identity on a database."""
    return TerminalLedger(database, HOME.root.public_key, who.key, who.certificate)
