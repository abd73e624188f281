"""Invariant 6 from the list that ends who writes here until another identity has taken over, in any order.

A fact is told by its time here. What counts is what this storage has written, and what it has heard of
another life of it, each once, whatever came in which order; and a restart says the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from crdt.block import Block
from crdt.columns import encode
from crdt.facts import Delta, Kind
from crdt.frontier import GENESIS, Head
from crdt.open_segment import OpenSegment
from crdt.revocations import Revocations
from crdt.store.inline import InlineDatabase
from crdt.store.terminal import TerminalLedger
from tests.crdt import world
from tests.crdt.store.branches import as_of, renewed
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.recoveries import FARE
from tests.crdt.store.relays import EVERYTHING, listed

OLD = world.TERMINALS[0]
LIFE, NEXT = renewed(OLD), renewed(OLD, b"M")
CARDS = 3

sizes = st.lists(st.integers(1, 3), max_size=3)
steps = st.lists(st.sampled_from(["merge", "hear", "forget", "tap", "start"]), max_size=10)


def fare(at_ms: int) -> Delta:
    return Delta(OLD.key.replica, 1, card(at_ms % CARDS), Kind.FARE, -250, at_ms)


def started(database: InlineDatabase, author: world.Terminal = OLD) -> TerminalLedger:
    return TerminalLedger(database, world.FLEET_KEY.public_key, author.key, author.certificate)


def balances(ledger: TerminalLedger) -> list[int]:
    return [ledger.view(card(number)).balance_minor for number in range(CARDS)]


def worth(times: Iterable[int]) -> list[int]:
    """The balances by fares at these times, each once."""
    once = {*times}
    return [-250 * sum(at_ms % CARDS == number for at_ms in once) for number in range(CARDS)]


@dataclass
class Life:
    """What the other one has written, and how much of it is known here."""

    times: Sequence[int]
    blocks: Sequence[Block]
    held: int = 0  # blocks
    heard: int = 0  # facts of it, the held ones too; 0: none are believed
    ends: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.ends = [0, *(block.last_seq for block in self.blocks)]

    @property
    def known(self) -> Sequence[int]:
        return self.times[: max(self.ends[self.held], self.heard)]

    def open(self, until: int) -> OpenSegment:
        """What it says after the blocks held here, up to a fact."""
        facts = as_of([fare(at_ms) for at_ms in self.times], LIFE)[self.ends[self.held] : until]
        head = self.blocks[self.held - 1].head if self.held else Head(0, GENESIS)
        return OpenSegment(head, len(facts), encode(facts).data if facts else b"")


@given(
    mine=sizes.filter(bool),
    unsealed=st.integers(0, 2),
    settled=st.integers(0, 2),
    both=st.sets(st.integers(0, 8)),
    theirs=sizes,
    play=steps,
    asks=st.booleans(),
)
def test_each_fact_that_is_known_here_counts_once(
    mine: list[int],
    unsealed: int,
    settled: int,
    both: set[int],
    theirs: list[int],
    play: list[str],
    asks: bool,
) -> None:
    """`settled`: how many of our blocks the hub has. `both`: which of our facts after them the other life has
    written as well, before some of its own. `asks`: whether the hub shows its chain."""
    with InlineDatabase.open(None, KEY) as database:
        ledger, clock = started(database), 0
        for size in mine:
            for _ in range(size):
                clock += 1
                ledger.transact(card(clock % CARDS), lambda _view: ([FARE], None), clock)
            ledger.seal()
        ends = [0, *accumulate(mine)]
        for _ in range(unsealed):
            clock += 1
            ledger.transact(card(clock % CARDS), lambda _view: ([FARE], None), clock)
        cut_off = ends[min(settled, len(mine))]
        hub = ledger.blocks_after(0, EVERYTHING)[: min(settled, len(mine))]
        again = [at_ms for at_ms in range(cut_off + 1, clock + 1) if at_ms in both]
        times = [*again, *range(100, 100 + sum(theirs))]
        chain = LIFE.blocks(as_of([fare(at_ms) for at_ms in times], LIFE), theirs) if times else []
        life, own = Life(times, chain), [*range(1, clock + 1)]
        ledger.merge([], [LIFE.certificate])
        assert ledger.put_document(listed(1, Revocations().with_replaced({OLD.key.replica: cut_off})))
        for step in play:
            if step == "merge" and life.held < len(life.blocks):
                ledger.merge([life.blocks[life.held].raw])
                life.held += 1
            elif step == "hear":
                life.heard = max(life.ends[life.held], (life.ends[life.held] + len(times)) // 2)
                assert ledger.believe(LIFE.key.replica, life.open(life.heard))
            elif step == "forget":
                ledger.forget(LIFE.key.replica)
                life.heard = 0
            elif step == "tap":
                clock += 1
                ledger.transact(card(clock % CARDS), lambda _view: ([FARE], None), clock)
                own.append(clock)
            elif step == "start":
                ledger, life.heard = started(database), 0
            assert balances(ledger) == worth([*own, *life.known])
        ledger.merge([block.raw for block in life.blocks])
        kin = [(LIFE.key.replica, [block.raw for block in life.blocks], [LIFE.certificate])]
        ledger.concede(OLD.key.replica, hub, ended=True, kin=kin if asks and times else [])
        everything = worth([*own, *times])
        assert balances(ledger) == everything
        goes_on = started(database, NEXT)
        assert balances(goes_on) == everything
        while goes_on.seal() is not None:
            pass
        assert balances(goes_on) == everything
        assert goes_on.books().balances_minor == sum(everything)
        assert balances(started(database, NEXT)) == everything
        assert started(database, NEXT).held()[0] == len({*own, *times}), "and nothing is there twice"
