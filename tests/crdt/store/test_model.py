"""Hub and terminals on disk against the model in memory, under any sequence of operations.

After every step: each terminal's view of each card is exact (invariant 6), all books balance (3), and the hub
has the balances and the digest of `crdt.ledger.Ledger` over the same blocks (2). At the end everybody syncs
and all digests are one (2, 4).
"""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from crdt.facts import MAX_AMOUNT_MINOR, CardId, Context, Draft
from crdt.ledger import Ledger
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, added_up, card

CARDS = [card(number) for number in range(6)]
cards = st.sampled_from(CARDS)
which = st.integers(0, 1)
drafts = world.money().filter(lambda money: abs(money[1]) < MAX_AMOUNT_MINOR).map(lambda money: Draft(*money))


class StoreMachine(RuleBasedStateMachine):
    """Two terminals and a hub, doing anything in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.fleet = Fleet(Path(self.directory.name), 2)
        self.model = Ledger(world.FLEET_KEY.public_key)
        self.model.merge([], [world.HUB, *world.CERTIFICATES])
        self.hotlisted: set[CardId] = set()

    @rule(index=which, card=cards, at_ms=world.times)
    def tap(self, index: int, card: CardId, at_ms: int) -> None:
        self.fleet.terminals[index].tap(card, world.moment_of(1 + index, at_ms))

    @rule(
        index=which,
        card=cards,
        several=st.lists(drafts, max_size=3),
        at_ms=world.times,
        context=world.contexts,
    )
    def write(self, index: int, card: CardId, several: list[Draft], at_ms: int, context: Context) -> None:
        self.fleet.terminals[index].write(card, several, world.moment_of(1 + index, at_ms), context)

    @rule(card=cards, draft=drafts)
    def book(self, card: CardId, draft: Draft) -> None:
        self.fleet.book(card, draft)
        self._tell_model(self.fleet.hub.blocks_after(self.fleet.hub.replica, 0, 1 << 24).result())

    @rule(card=cards, hotlisted=st.booleans())
    def set_hotlisted(self, card: CardId, hotlisted: bool) -> None:
        assert self.fleet.hub.set_hotlisted(card, hotlisted).result() == (
            hotlisted != (card in self.hotlisted)
        )
        self.hotlisted ^= {card} if hotlisted != (card in self.hotlisted) else set()

    @rule(index=which)
    def seal(self, index: int) -> None:
        self.fleet.terminals[index].ledger.seal()

    @rule(index=which, max_bytes=st.sampled_from([1, 600, 1 << 20]))
    def push(self, index: int, max_bytes: int) -> None:
        report = self.fleet.send(self.fleet.terminals[index], max_bytes)
        assert not report.refused
        self._tell_model([block.raw for block in report.added])

    @rule(index=which, data=st.data())
    def push_again(self, index: int, data: st.DataObject) -> None:
        """What the hub has already, and what comes too early, in any order."""
        raws = self.fleet.terminals[index].ledger.blocks_after(0, 1 << 20)
        some = data.draw(st.lists(st.sampled_from(raws), max_size=4)) if raws else []
        mine = self.fleet.hub.merge(some, world.CERTIFICATES).result()
        theirs = self.model.merge(some)
        assert (mine.known, mine.heads) == (theirs.known, theirs.heads)
        assert [block.raw for block in mine.added] == [block.raw for block in theirs.added]
        assert [(one.raw, type(one.error)) for one in mine.refused] == [
            (one.raw, type(one.error)) for one in theirs.refused
        ]

    @rule(index=which, limit=st.sampled_from([1, 2, 4096]))
    def pull(self, index: int, limit: int) -> None:
        self.fleet.pull_one(self.fleet.terminals[index], limit)

    @rule(index=which)
    def restart_terminal(self, index: int) -> None:
        terminal = self.fleet.terminals[index]
        before = terminal.ledger.status(), terminal.ledger.digest(), terminal.ledger.settled()
        terminal.reopen()
        assert before == (terminal.ledger.status(), terminal.ledger.digest(), terminal.ledger.settled())

    @rule()
    def restart_hub(self) -> None:
        self.fleet.hub_database.close()
        self.fleet.open_hub()

    @invariant()
    def every_view_is_exact(self) -> None:
        for terminal in self.fleet.terminals:
            expected = self.fleet.believed_by(terminal)
            for one in expected:
                view = terminal.ledger.view(one)
                assert view.known
                assert view.balance_minor == expected[one].balance_minor
            books = terminal.ledger.books()
            assert books.balance
            assert books.balances_minor == sum(state.balance_minor for state in expected.values())

    @invariant()
    def the_hub_is_the_model(self) -> None:
        hub = self.fleet.hub
        assert hub.digest().result() == self.model.digest()
        assert hub.books().result() == self.model.books()
        assert hub.heads().result() == self.model.frontier
        for one in CARDS:
            assert hub.balance(one).result() == self.model.balance(one)
            row = hub.card(one).result()
            assert (row is not None and row.hotlisted) == (one in self.hotlisted)

    def teardown(self) -> None:
        try:
            self.fleet.heal()
            expected = added_up(self.fleet.facts())
            digests = {terminal.ledger.digest() for terminal in self.fleet.terminals}
            assert digests == {self.fleet.hub.digest().result()}
            for terminal in self.fleet.terminals:
                assert terminal.ledger.held() == (0, 0)
                for one in CARDS:
                    view = terminal.ledger.view(one)
                    assert view.hotlisted == (one in self.hotlisted)
                    assert view.balance_minor == (expected[one].balance_minor if one in expected else 0)
        finally:
            self.fleet.close()
            self.directory.cleanup()

    def _tell_model(self, raws: list[bytes]) -> None:
        assert not self.model.merge(raws).refused


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=10, stateful_step_count=25)
