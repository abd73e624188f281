"""The parts of a hub's ledger, each given what it works with, and what a change means for all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from crdt.certificate import AuthorCertificate
from crdt.facts import CardId
from crdt.signing import SigningKey
from crdt.store import cutting, overdrawn
from crdt.store.authors import Authors
from crdt.store.chore import Chore
from crdt.store.claims import Claims
from crdt.store.closing import Closing
from crdt.store.editions import Editions
from crdt.store.expectations import Expectations
from crdt.store.flagging import Flagging
from crdt.store.intake import Intake
from crdt.store.listening import Listeners
from crdt.store.markkeeper import Keeper
from crdt.store.neighbours import Neighbours, Place
from crdt.store.numbers import CardNumbers
from crdt.store.own_chain import OwnChain
from crdt.store.ownfacts import OwnFacts
from crdt.store.projection import Projection
from crdt.store.recording import Change
from crdt.store.store import Shared, Store
from crdt.store.unfinished import Work
from crdt.store.witness import Witness


class HubParts:
    """They begin to work in the background as soon as they are made."""

    def __init__(
        self,
        database: Store,
        key: SigningKey,
        certificate: AuthorCertificate,
        authors: Authors,
        chain: OwnChain,
        keeper: Keeper | None,
        editions: Editions | None,
        now_ms: Callable[[], int],
    ) -> None:
        """`chain`: of `key`, which `certificate` is for."""
        self._authors = authors
        self._keeper = keeper
        self._editions = editions
        self._neighbours: Neighbours | None = None
        self._numbers = CardNumbers()
        self._stops: list[Callable[[], None]] = []
        self.expectations = Expectations(database, authors)
        self.claims = Claims(database, authors)
        self.listeners: Listeners[[Change]] = Listeners()
        self.intake = Intake(database, authors, self._numbers, chain, keeper, now_ms, self.publish)
        self.own = OwnFacts(database, key, certificate, chain, keeper, now_ms, self.publish, authors)
        self.judging = Chore(
            database,
            overdrawn.judge_some,
            lambda judged: self.publish(judged.change),
            "Cards are not judged by the new rule for balances; those that ride or pay are.",
        )
        self.cutting = Chore(
            database,
            lambda connection: cutting.cut_some(connection, now_ms()),
            lambda cut: self.publish(cut.change),
            "What revoked terminals wrote beyond their cut-offs still counts in part.",
        )
        self.closing = Closing(database, self.publish)
        self.flagging = Flagging(database, now_ms, self.publish)
        self.projection = Projection(database, self._projected, self._repeated, now_ms)
        self.judging.begin()
        self.cutting.begin()
        self.own.compare_all()

    def join(self, database: Shared, place: Place) -> None:
        """Hear of what other processes change, from `place` on."""
        self._neighbours = Neighbours(database, place, self._authors, self.listeners.tell, self._go_on)
        self._stops.append(database.on_others(self._neighbours.look))

    def guard(self, database: Shared, witness: Witness) -> None:
        """Let `witness` look whether the server went back."""
        database.guard(witness)
        self._stops += [database.on_others(witness.look), partial(database.guard, None)]

    def publish(self, change: Change | None) -> None:
        """A change is durable: keep memory right, tell whoever listens, begin what it asks for."""
        if change is None:
            return
        if self._neighbours is not None:
            self._neighbours.own(change)
        if self._editions is not None:
            self._editions.changed(change.position)
        self._numbers.learn(change.met)
        self.listeners.tell(change)
        if change.replicas:
            self.projection.follow()
        if change.gone:
            self.own.compare_all(change.asked)
        elif change.again or change.evidence:
            came = [*change.replicas, *change.suspects] if change.again else []
            self.own.compare(came, change.evidence, change.asked)
        elif change.replicas and len(self._authors.hubs) > 1:
            self.own.compare(())

    def close(self) -> None:
        """Hear of others no more, begin no more work, and write down the last marks; waits."""
        for stop in self._stops:
            stop()
        for work in (self.judging, self.cutting, self.projection, self.own):
            work.end()
        if self._keeper is not None:
            self._keeper.close()

    def _go_on(self, stuck: Collection[Work]) -> None:
        """With what nobody goes on with, and with what has failed here while the server was away, say."""
        self.projection.resume(wanted=Work.HISTORY in stuck)
        self.cutting.resume(wanted=Work.CUTTING in stuck)
        self.judging.resume(wanted=Work.JUDGING in stuck)
        self.own.resume(wanted=bool({Work.RIDES, Work.REPEATS} & set(stuck)))
        if Work.COMPARING in stuck:
            self.own.take_over()

    def _repeated(self) -> None:
        self.own.compare(())

    def _projected(self, cards: frozenset[CardId]) -> None:
        self.listeners.tell(Change(0, cards, history=True))
