"""Invariant 6 where a list ends who writes here before it goes on as another: everything counts, once."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from crdt.columns import encode
from crdt.errors import NotPermitted
from crdt.facts import Delta, Kind
from crdt.frames import Want
from crdt.frontier import GENESIS, Head
from crdt.open_segment import OpenSegment
from crdt.revocations import Revocations
from crdt.store.inline import InlineDatabase
from crdt.store.terminal import TerminalLedger
from tests.crdt import world
from tests.crdt.store.branches import as_of, renewed
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.recoveries import FARE
from tests.crdt.store.relays import EVERYTHING, listed, page

OLD = world.TERMINALS[0]
LIFE, NEXT = renewed(OLD), renewed(OLD, b"M")  # of a copy of the storage; and what it goes on as itself
OTHER = world.TERMINALS[1]
BOTH, MINE, OPEN, THEIRS = range(1, 5)
"""Cards: of taps that both storages have sealed, one, both and not sealed, the other one."""


def fare(number: int, at_ms: int) -> Delta:
    """What a tap writes; `as_of` says by whom."""
    return Delta(OLD.key.replica, 1, card(number), Kind.FARE, -250, at_ms)


class Seen(NamedTuple):
    """Of the cards 1 to 4."""

    balances: list[int]
    paid_ms: list[int | None]


def seen(ledger: TerminalLedger) -> Seen:
    views = [ledger.view(card(number)) for number in range(1, 5)]
    return Seen([view.balance_minor for view in views], [view.last_fare_at_ms for view in views])


def tap(ledger: TerminalLedger, number: int, at_ms: int) -> None:
    ledger.transact(card(number), lambda _view: ([FARE], None), at_ms)


def ledger_on(database: InlineDatabase, author: world.Terminal = OLD) -> TerminalLedger:
    return TerminalLedger(database, world.FLEET_KEY.public_key, author.key, author.certificate)


class Interleaved(InlineDatabase):
    """Lets another thread write first, once."""

    first: Callable[[], object] | None = None

    def write_and_wait(self, *arguments: Any, **options: Any) -> Any:
        first, self.first = self.first, None
        if first is not None:
            first()
        return super().write_and_wait(*arguments, **options)


@pytest.fixture
def database() -> Iterator[Interleaved]:
    with Interleaved.open(None, KEY) as opened:
        yield opened


@pytest.fixture
def ledger(database: InlineDatabase) -> TerminalLedger:
    """Of OLD: the hub has its first block; what it wrote with its second one was copied by then, and open."""
    ledger = ledger_on(database)
    tap(ledger, BOTH, 1)
    ledger.seal()
    tap(ledger, BOTH, 2)
    ledger.seal()
    tap(ledger, OPEN, 3)
    tap(ledger, MINE, 4)
    return ledger


ALL = Seen([-500, -250, -250, 0], [2, 4, 3, None])
WITH_THEIRS = Seen([-500, -250, -250, -250], [2, 4, 3, 5])
ENDED = listed(1, Revocations().with_replaced({OLD.key.replica: 1}))
AGAIN = as_of([fare(BOTH, 2), fare(OPEN, 3), fare(THEIRS, 5)], LIFE)


def test_who_was_replaced_counts_on_until_it_goes_on_as_another(
    database: InlineDatabase, ledger: TerminalLedger
) -> None:
    """A list that comes by a peer, or to the identity of before, takes nothing from a view."""
    hub = ledger.blocks_after(0, 1)
    assert ledger.put_document(ENDED)
    assert (ledger.suspended, ledger.was_replaced, ledger.revoked) == (True, True, False)
    assert seen(ledger) == ALL
    assert ledger.held() == (4, -1000)
    assert seen(ledger_on(database)) == ALL, "after a restart as well"
    ledger = ledger_on(database)
    assert ledger.concede(OLD.key.replica, hub, ended=True).reissued == 1
    assert seen(ledger) == ALL
    goes_on = ledger_on(database, NEXT)
    assert seen(goes_on) == ALL
    goes_on.seal()
    assert goes_on.frontier()[OLD.key.replica].seq == 1
    assert goes_on.held() == (4, -1000)


@pytest.mark.parametrize("sealed", [0, 1, 2, 3])
def test_what_another_life_has_written_as_well_counts_once(
    database: InlineDatabase, ledger: TerminalLedger, sealed: int
) -> None:
    """Nor is a tap lost that this storage alone has; whether the other life has sealed what it says or no."""
    hub = ledger.blocks_after(0, 1)
    ledger.put_document(ENDED)
    chain = LIFE.blocks(AGAIN[:sealed], [])
    ledger.merge([block.raw for block in chain], [LIFE.certificate])
    assert seen(ledger) == (WITH_THEIRS if sealed == len(AGAIN) else ALL)
    head = chain[-1].head if chain else Head(0, GENESIS)
    open_facts = AGAIN[sealed:]
    data = encode(open_facts).data if open_facts else b""
    assert ledger.believe(LIFE.key.replica, OpenSegment(head, len(open_facts), data))
    assert seen(ledger) == WITH_THEIRS
    rest = LIFE.blocks(AGAIN, [sealed])[len(chain) :]
    assert not ledger.merge([block.raw for block in rest]).refused
    assert seen(ledger) == WITH_THEIRS
    assert ledger.books().balances_minor == sum(WITH_THEIRS.balances)
    ledger = ledger_on(database)
    assert seen(ledger) == WITH_THEIRS, "after a restart as well"
    kin = [(LIFE.key.replica, [block.raw for block in [*chain, *rest]], [LIFE.certificate])]
    assert ledger.concede(OLD.key.replica, hub, ended=True, kin=kin).reissued == 0
    assert seen(ledger) == WITH_THEIRS
    assert seen(ledger_on(database, NEXT)) == WITH_THEIRS
    assert ledger_on(database, NEXT).seal() is not None
    assert seen(ledger_on(database, NEXT)) == WITH_THEIRS


def test_a_cards_history_has_what_both_lives_say_once(
    database: InlineDatabase, ledger: TerminalLedger
) -> None:
    """So that it adds up to the balance beside it; sealed here or not, and after a restart as well."""
    ledger.merge([block.raw for block in LIFE.blocks(AGAIN, [1])], [LIFE.certificate])
    ledger.put_document(ENDED)
    for one in (ledger, ledger_on(database)):
        told = [[fact.at_ms for fact in one.history(card(number))] for number in range(1, 5)]
        assert told == [[2, 1], [4], [3], [5]]
        assert [fact.at_ms for fact in one.history(card(BOTH), 1)] == [2]
        assert {fact.replica for fact in one.history(card(BOTH))} == {OLD.key.replica}


def test_open_taps_of_another_life_that_were_heard_before_the_list_count_once(
    database: InlineDatabase, ledger: TerminalLedger
) -> None:
    """They are forgotten with it, and heard again at once."""
    ledger.merge([], [LIFE.certificate])
    said = OpenSegment(Head(0, GENESIS), len(AGAIN), encode(AGAIN).data)
    assert ledger.believe(LIFE.key.replica, said)
    ledger.put_document(ENDED)
    assert seen(ledger) == ALL
    assert ledger.believe(LIFE.key.replica, said)
    assert seen(ledger) == WITH_THEIRS


def test_open_taps_that_are_heard_while_the_list_is_put_count_once(
    database: Interleaved, ledger: TerminalLedger
) -> None:
    """Another thread hears a peer's: what it has found out of them is out of date when it writes."""
    ledger.merge([], [LIFE.certificate])
    database.first = lambda: ledger.put_document(ENDED)
    assert ledger.believe(LIFE.key.replica, OpenSegment(Head(0, GENESIS), len(AGAIN), encode(AGAIN).data))
    assert ledger.was_replaced
    assert seen(ledger) == WITH_THEIRS


def test_blocks_of_another_life_that_were_there_before_the_list_count_once(ledger: TerminalLedger) -> None:
    blocks = LIFE.blocks(AGAIN, [])
    ledger.merge([block.raw for block in blocks], [LIFE.certificate])
    ledger.put_document(ENDED)
    assert seen(ledger) == WITH_THEIRS


@pytest.mark.parametrize(
    "later",
    [
        Revocations().with_replaced({OLD.key.replica: 1}).with_revoked({OLD.key.replica: 0}),
        Revocations().with_replaced({OLD.key.replica: 2}),
        Revocations(),
    ],
    ids=["stopped", "cut off elsewhere", "forgotten"],
)
def test_whatever_a_later_list_says_a_restart_says_the_same(
    database: InlineDatabase, ledger: TerminalLedger, later: Revocations
) -> None:
    ledger.put_document(ENDED)
    ledger.merge([block.raw for block in LIFE.blocks(AGAIN, [])], [LIFE.certificate])
    ledger.put_document(listed(2, later))
    before = seen(ledger), ledger.held()
    afresh = ledger_on(database)
    assert (seen(afresh), afresh.held()) == before


def test_what_another_life_says_here_is_not_written_again_though_the_hub_lacks_it(
    database: InlineDatabase, ledger: TerminalLedger
) -> None:
    """It is on its way there, by this terminal if by nobody else."""
    hub = ledger.blocks_after(0, 1)
    ledger.put_document(ENDED)
    ledger.merge([block.raw for block in LIFE.blocks(AGAIN, [])], [LIFE.certificate])
    assert ledger.concede(OLD.key.replica, hub, ended=True).reissued == 0
    goes_on = ledger_on(database, NEXT)
    assert seen(goes_on) == WITH_THEIRS
    goes_on.seal()
    assert goes_on.own_head().seq == 1, "but for the tap that this storage alone has"
    assert seen(ledger_on(database, NEXT)) == WITH_THEIRS


@pytest.mark.parametrize("shown", [0, 1])
def test_what_a_copy_under_another_name_says_here_is_not_written_again_though_the_hub_lacks_it(
    database: InlineDatabase, ledger: TerminalLedger, shown: int
) -> None:
    """The hub names it as one that had this storage; it may have nothing of it, or not all, so far."""
    hub, theirs = ledger.blocks_after(0, 1), OTHER.blocks(as_of(AGAIN, OTHER), [1])
    raws = [block.raw for block in theirs]
    ledger.merge(raws, [OTHER.certificate])
    kin = [(OTHER.key.replica, raws[:shown], [OTHER.certificate][:shown])]
    assert ledger.concede(OLD.key.replica, hub, ended=True, kin=kin, listed=ENDED).reissued == 0
    goes_on = ledger_on(database, NEXT)
    assert seen(goes_on) == WITH_THEIRS
    goes_on.seal()
    assert goes_on.own_head().seq == 1, "but for the tap that this storage alone has"


@pytest.mark.parametrize("shared_at", ["end", "beginning"])
def test_what_another_life_says_on_a_branch_that_the_hub_refuses_is_written_again(
    ledger: TerminalLedger, shared_at: str
) -> None:
    """Invariant 4: its storage was copied too, and the hub has the other branch: this one counts nowhere."""
    hub = ledger.blocks_after(0, 1)
    ledger.put_document(ENDED)
    branch = LIFE.blocks(as_of([fare(BOTH, 2), fare(THEIRS, 5)], LIFE), [1])
    if shared_at == "end":
        branch = LIFE.blocks(as_of([fare(THEIRS, 5), fare(BOTH, 2)], LIFE), [1])
    ledger.merge([block.raw for block in branch], [LIFE.certificate])
    counts = LIFE.blocks(as_of([fare(THEIRS, 7)], LIFE), [])
    kin = [(LIFE.key.replica, [block.raw for block in counts], [LIFE.certificate])]
    assert ledger.concede(OLD.key.replica, hub, ended=True, kin=kin).reissued == 1


def test_what_a_list_cuts_off_of_another_life_is_written_again(
    database: InlineDatabase, ledger: TerminalLedger
) -> None:
    """It counts nowhere as what that wrote."""
    hub = ledger.blocks_after(0, 1)
    ledger.put_document(ENDED)
    ledger.merge([block.raw for block in LIFE.blocks(AGAIN, [2])], [LIFE.certificate])
    both = Revocations().with_replaced({OLD.key.replica: 1, LIFE.key.replica: 0})
    ledger.concede(OLD.key.replica, hub, ended=True, listed=listed(2, both))
    assert seen(ledger).balances == ALL.balances
    assert seen(ledger_on(database, NEXT)).balances == ALL.balances


@pytest.mark.parametrize("given_way", [False, True])
def test_what_another_life_said_here_alone_is_written_again_where_that_ends_too(
    database: InlineDatabase, ledger: TerminalLedger, given_way: bool
) -> None:
    """Invariant 4: the hub ends it with this one, without what never came there.

    Before it is known whether that is so, nothing of it may be given up.
    """
    theirs = OLD.blocks(as_of([fare(BOTH, 1), fare(THEIRS, 6)], OLD), [1])
    hub = [block.raw for block in theirs]
    ledger.put_document(listed(1, Revocations().with_replaced({OLD.key.replica: 2})))
    ledger.merge([block.raw for block in LIFE.blocks(AGAIN, [2])], [LIFE.certificate])
    if given_way:
        ledger.concede(OLD.key.replica, hub)
        assert seen(ledger).balances == [-500, -250, -250, -500]
    both = Revocations().with_replaced({OLD.key.replica: 2, LIFE.key.replica: 0})
    ledger.concede(OLD.key.replica, hub, ended=True, listed=listed(2, both))
    assert seen(ledger).balances == WITH_THEIRS.balances
    assert seen(ledger_on(database, NEXT)).balances == WITH_THEIRS.balances


def test_who_takes_over_and_has_ended_by_then_seals_nothing(
    database: InlineDatabase, ledger: TerminalLedger
) -> None:
    """Another copy of the storage has taken the same identity up, and was replaced since."""
    hub = ledger.blocks_after(0, 1)
    both = Revocations().with_replaced({OLD.key.replica: 1, NEXT.key.replica: 0})
    ledger.concede(OLD.key.replica, hub, ended=True, listed=listed(1, both))
    goes_on = ledger_on(database, NEXT)
    assert (goes_on.suspended, goes_on.was_replaced) == (True, True)
    assert goes_on.seal() is None
    assert seen(goes_on) == ALL


def test_who_takes_over_what_another_copy_has_taken_over_seals_nothing(
    database: InlineDatabase, ledger: TerminalLedger
) -> None:
    """Invariant 5: that one may have sealed more than anybody knows here."""
    hub = ledger.blocks_after(0, 1)
    ledger.put_document(ENDED)
    theirs = NEXT.blocks(as_of([fare(BOTH, 2), fare(OPEN, 3), fare(THEIRS, 5)], NEXT), [])
    ledger.merge([block.raw for block in theirs], [NEXT.certificate])
    assert seen(ledger) == WITH_THEIRS
    kin = [(NEXT.key.replica, [block.raw for block in theirs], [NEXT.certificate])]
    assert ledger.concede(OLD.key.replica, hub, ended=True, kin=kin).reissued == 0
    goes_on = ledger_on(database, NEXT)
    assert goes_on.suspended
    assert goes_on.seal() is None
    assert seen(goes_on) == WITH_THEIRS


@pytest.mark.parametrize("theirs", [[4, 3, 2], [5, 2, 3, 4], [2, 5, 3, 4], [3], [4, 5]])
@pytest.mark.parametrize("seals", [False, True])
def test_what_another_copy_wrote_again_in_another_order_as_the_same_identity_counts_once(
    database: InlineDatabase, ledger: TerminalLedger, seals: bool, theirs: list[int]
) -> None:
    """Both have taken it up before either had sent anything as it: a number tells no fact of the other's."""
    hub = ledger.blocks_after(0, 1)
    ledger.concede(OLD.key.replica, hub, ended=True, listed=ENDED)
    goes_on = ledger_on(database, NEXT)
    taps = {2: BOTH, 3: OPEN, 4: MINE, 5: THEIRS}
    facts = [fare(taps[at_ms], at_ms) for at_ms in theirs]
    if seals:
        goes_on.seal()
    chain = [block.raw for block in NEXT.blocks(as_of(facts, NEXT), [1])]
    goes_on.concede(NEXT.key.replica, chain)
    expected = WITH_THEIRS if 5 in theirs else ALL
    assert seen(goes_on) == expected
    assert seen(ledger_on(database, NEXT)) == expected
    last = ledger_on(database, renewed(OLD, b"L"))
    while last.seal() is not None:
        pass
    assert last.held() == (1 + len({2, 3, 4, *theirs}), sum(expected.balances))


@pytest.mark.parametrize("taps", [[2, 3, 4], [3, 5], [5]])
def test_what_a_copy_wrote_as_the_same_next_identity_before_that_ended_counts_once(
    database: InlineDatabase, ledger: TerminalLedger, taps: list[int]
) -> None:
    """A peer brought its block here, and a list has cut it off since: both of them write it again."""
    hub = ledger.blocks_after(0, 1)
    cards = {2: BOTH, 3: OPEN, 4: MINE, 5: THEIRS}
    theirs = NEXT.blocks(as_of([fare(cards[at_ms], at_ms) for at_ms in taps], NEXT), [])
    ledger.merge([block.raw for block in theirs], [NEXT.certificate])
    both = Revocations().with_replaced({OLD.key.replica: 1, NEXT.key.replica: 0})
    ledger.put_document(listed(1, both))
    ledger.concede(OLD.key.replica, hub, ended=True)
    goes_on = ledger_on(database, NEXT)
    goes_on.concede(NEXT.key.replica, [], ended=True)
    expected = WITH_THEIRS if 5 in taps else ALL
    assert seen(goes_on).balances == expected.balances
    last = ledger_on(database, renewed(OLD, b"L"))
    last.seal()
    assert last.held() == (-sum(expected.balances) // 250, sum(expected.balances))


def test_another_terminals_equal_tap_is_another_tap(ledger: TerminalLedger) -> None:
    """One card on two buses in one millisecond: that is for an operator to look at, not to be left out."""
    ledger.put_document(ENDED)
    blocks = OTHER.blocks(as_of([fare(BOTH, 2)], OTHER), [])
    ledger.merge([block.raw for block in blocks], [OTHER.certificate])
    assert seen(ledger).balances == [-750, -250, -250, 0]


def test_who_was_replaced_hands_on_nothing_beyond_its_cut_off(ledger: TerminalLedger) -> None:
    """Nobody would take it, and it would be offered over and over."""
    first, second = ledger.blocks_after(0, EVERYTHING)
    ledger.put_document(ENDED)
    assert ledger.blocks_after(0, EVERYTHING) == [first]
    assert ledger.blocks_after(1, EVERYTHING) == []
    handed = [frame.raw for frame in ledger.answer(Want({}, others=True), EVERYTHING)]
    assert first in handed
    assert second not in handed
    assert ledger.quarantined(9) == [], "it is no evidence as long as it counts"
    assert ledger.kept_back() == 1
    assert ledger.lacking() == {}


def test_who_was_replaced_installs_nothing(ledger: TerminalLedger) -> None:
    """A settlement may include what another life has written again, and does not say what that was."""
    settlement = page({LIFE.key.replica: Head(3, bytes(32))}, [], 1)
    ledger.put_document(ENDED)
    with pytest.raises(NotPermitted):
        ledger.install(settlement)
    assert seen(ledger) == ALL
    assert ledger.settled()[1] == 0


def test_what_was_cut_off_of_somebody_who_was_stopped_by_mistake_is_written_again(
    database: InlineDatabase, ledger: TerminalLedger
) -> None:
    """Invariant 4: the operator has taken that back by the time that it goes on as another."""
    hub = ledger.blocks_after(0, 1)
    ledger.put_document(listed(1, Revocations({OLD.key.replica: 1})))
    assert seen(ledger).balances == [-250, -250, -250, 0]
    assert ledger.blocks_after(0, EVERYTHING) == hub
    back = listed(2, Revocations().with_replaced({OLD.key.replica: 1}))
    assert ledger.concede(OLD.key.replica, hub, ended=True, listed=back).reissued == 1
    assert seen(ledger) == ALL
    assert seen(ledger_on(database, NEXT)) == ALL


def test_who_is_stopped_as_well_counts_to_its_cut_off(ledger: TerminalLedger) -> None:
    """Invariant 10: an operator decides what counts of the rest."""
    ledger.put_document(ENDED)
    stopped = Revocations().with_replaced({OLD.key.replica: 1}).with_revoked({OLD.key.replica: 0})
    ledger.put_document(listed(2, stopped))
    assert seen(ledger).balances == [-250, -250, -250, 0]
    assert len(ledger.quarantined(9)) == 1
