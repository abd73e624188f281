"""Invariants 4 and 6 where a list ends who wrote here before the terminal was paired anew: all, and once."""

from collections.abc import Iterator

import pytest

from crdt.columns import encode
from crdt.errors import MisuseError, NotPermitted
from crdt.frames import Want
from crdt.frontier import GENESIS, Head
from crdt.open_segment import OpenSegment
from crdt.revocations import Revocations
from crdt.store.inline import InlineDatabase
from crdt.store.terminal import TerminalLedger
from tests.crdt.store.branches import as_of, renewed
from tests.crdt.store.fleet import KEY
from tests.crdt.store.relays import EVERYTHING, listed, page
from tests.crdt.store.test_replaced_here import (
    AGAIN,
    ALL,
    BOTH,
    ENDED,
    LIFE,
    MINE,
    NEXT,
    OLD,
    OPEN,
    OTHER,
    THEIRS,
    WITH_THEIRS,
    fare,
    ledger_on,
    seen,
    tap,
)

PAIRED = renewed(OLD, b"P")  # what the terminal is by now, and it has not heard of the list
CHAIN = [(LIFE.key.replica, [block.raw for block in LIFE.blocks(AGAIN, [1])], [LIFE.certificate])]


@pytest.fixture
def database() -> Iterator[InlineDatabase]:
    with InlineDatabase.open(None, KEY) as opened:
        yield opened


@pytest.fixture(params=[PAIRED, OTHER], ids=["same name", "another name"])
def ledger(database: InlineDatabase, request: pytest.FixtureRequest) -> TerminalLedger:
    """The hub has the first block of OLD; a copy was made before the last two taps were sealed."""
    before = ledger_on(database)
    for number, at_ms in ((BOTH, 1), (BOTH, 2)):
        tap(before, number, at_ms)
        before.seal()
    tap(before, OPEN, 3)
    tap(before, MINE, 4)
    before.retire()
    return ledger_on(database, request.param)


def hubs(ledger: TerminalLedger) -> list[bytes]:
    return ledger.blocks_after(0, 1, OLD.key.replica)


def test_it_counts_on_until_the_next_identity_writes_it_again(
    database: InlineDatabase, ledger: TerminalLedger
) -> None:
    """Whoever brings the list, also after a restart; what is tapped meanwhile is the next one's too."""
    hub = hubs(ledger)
    ledger.put_document(ENDED)
    assert (ledger.suspended, ledger.was_replaced, ledger.revoked) == (True, True, False)
    assert seen(ledger) == ALL
    ledger = ledger_on(database, PAIRED if ledger.replica == PAIRED.key.replica else OTHER)
    assert (ledger.suspended, ledger.was_replaced) == (True, True)
    tap(ledger, THEIRS, 5)
    assert ledger.seal() is None
    assert seen(ledger) == WITH_THEIRS
    assert ledger.concede(OLD.key.replica, hub, ended=True, kin=[]).reissued == 3
    assert seen(ledger) == WITH_THEIRS
    goes_on = ledger_on(database, NEXT)
    assert (goes_on.suspended, goes_on.was_replaced) == (False, False)
    goes_on.seal()
    assert seen(goes_on) == WITH_THEIRS
    assert goes_on.frontier()[OLD.key.replica].seq == 1
    assert goes_on.own_head().seq == 4


def test_nothing_is_handed_on_or_installed_until_then(ledger: TerminalLedger) -> None:
    first, *rest = ledger.blocks_after(0, EVERYTHING, OLD.key.replica)
    ledger.put_document(ENDED)
    assert ledger.blocks_after(0, EVERYTHING, OLD.key.replica) == [first]
    handed = [frame.raw for frame in ledger.answer(Want({}, others=True), EVERYTHING)]
    assert first in handed
    assert not {*rest} & {*handed}
    assert ledger.quarantined(9) == [], "it is no evidence as long as it counts"
    assert ledger.kept_back() == 3
    with pytest.raises(NotPermitted):
        ledger.install(page({LIFE.key.replica: Head(3, bytes(32))}, [], 1))


@pytest.mark.parametrize("sealed", [0, 2, 3])
def test_what_a_copy_has_written_again_counts_once_and_is_not_written_again(
    database: InlineDatabase, ledger: TerminalLedger, sealed: int
) -> None:
    hub = hubs(ledger)
    ledger.put_document(ENDED)
    chain, open_facts = LIFE.blocks(AGAIN[:sealed], []), AGAIN[sealed:]
    ledger.merge([block.raw for block in chain], [LIFE.certificate])
    head = chain[-1].head if chain else Head(0, GENESIS)
    data = encode(open_facts).data if open_facts else b""
    assert ledger.believe(LIFE.key.replica, OpenSegment(head, len(open_facts), data))
    assert seen(ledger) == WITH_THEIRS
    rest = LIFE.blocks(AGAIN, [sealed])[len(chain) :]
    assert not ledger.merge([block.raw for block in rest]).refused
    assert seen(ledger) == WITH_THEIRS
    kin = [(LIFE.key.replica, [block.raw for block in [*chain, *rest]], [LIFE.certificate])]
    assert ledger.concede(OLD.key.replica, hub, ended=True, kin=kin).reissued == 1
    goes_on = ledger_on(database, NEXT)
    assert seen(goes_on) == WITH_THEIRS
    goes_on.seal()
    assert goes_on.own_head().seq == 1, "the tap that this storage alone has"


def test_what_the_hubs_chain_contradicts_is_compared_with_what_others_say(ledger: TerminalLedger) -> None:
    theirs = OLD.blocks(as_of([fare(BOTH, 1), fare(THEIRS, 6)], OLD), [1])
    ledger.suspend()
    raws = [block.raw for block in theirs]
    assert ledger.concede(OLD.key.replica, raws, ended=True, kin=CHAIN).reissued == 1


def test_none_is_compared_with_others_while_the_writer_may_seal(ledger: TerminalLedger) -> None:
    """A block may be drafted with what they say."""
    with pytest.raises(MisuseError):
        ledger.concede(OLD.key.replica, hubs(ledger), ended=True, kin=CHAIN)


def test_what_others_wrote_as_it_beyond_its_cut_off_is_theirs_to_write_again(ledger: TerminalLedger) -> None:
    """It came here after the list, from another copy of the storage, which goes on under another name."""
    hub = hubs(ledger)
    ledger.put_document(ENDED)
    ledger.concede(OLD.key.replica, hub, ended=True)
    theirs = OLD.blocks(as_of([fare(BOTH, 1), fare(THEIRS, 6)], OLD), [1])
    assert ledger.merge([block.raw for block in theirs]).refused
    assert ledger.concede(OLD.key.replica, hub, ended=True).reissued == 0
    assert seen(ledger) == ALL


def test_who_takes_over_while_it_was_not_written_again_seals_nothing(
    database: InlineDatabase, ledger: TerminalLedger
) -> None:
    """The list came between the comparison and the end of it."""
    ledger.put_document(ENDED)
    goes_on = ledger_on(database, NEXT)
    assert (goes_on.suspended, goes_on.was_replaced) == (True, True)
    assert seen(goes_on) == ALL


def test_a_list_that_leaves_all_that_it_wrote_asks_for_nothing(ledger: TerminalLedger) -> None:
    ledger.put_document(listed(1, Revocations().with_replaced({OLD.key.replica: 4})))
    assert (ledger.suspended, ledger.was_replaced) == (False, False)


def test_what_an_operator_has_stopped_counts_to_its_cut_off(ledger: TerminalLedger) -> None:
    """Invariant 10: he decides what counts of the rest."""
    ledger.put_document(ENDED)
    stopped = Revocations().with_replaced({OLD.key.replica: 1}).with_revoked({OLD.key.replica: 0})
    ledger.put_document(listed(2, stopped))
    assert not ledger.was_replaced
    assert seen(ledger).balances == [-250, 0, 0, 0]
    assert len(ledger.quarantined(9)) == 2


def test_what_the_present_one_has_written_again_it_does_not_write_once_more(
    database: InlineDatabase,
) -> None:
    """What a former identity wrote counted for a while, by a cut-off that was moved, and leaves again. The
    present one, which ends then, has said it as well; its chain is none of those that it is compared with."""
    old = ledger_on(database)
    tap(old, BOTH, 1)
    old.seal()
    tap(old, MINE, 2)
    old.seal()
    (hub, branch) = old.blocks_after(0, EVERYTHING)
    ended = Revocations().with_replaced({OLD.key.replica: 1})
    old.put_document(listed(1, ended))
    assert old.concede(OLD.key.replica, [hub], ended=True, kin=[]).reissued == 1
    now = ledger_on(database, NEXT)
    now.seal()
    was = seen(now)
    now.put_document(listed(2, ended.with_cut_off(OLD.key.replica, 2)))
    assert now.merge([branch], [OLD.certificate]).added
    now.put_document(listed(3, ended))
    now.put_document(listed(4, ended.with_replaced({NEXT.key.replica: 0})))
    kin = [(PAIRED.key.replica, list[bytes](), [PAIRED.certificate])]
    assert now.concede(OLD.key.replica, [hub], [OLD.certificate], ended=True, kin=kin).reissued == 1
    assert now.concede(NEXT.key.replica, [], [NEXT.certificate], ended=True, kin=kin).reissued == 0
    assert seen(now) == was
    goes_on = ledger_on(database, PAIRED)
    goes_on.seal()
    assert goes_on.own_head().seq == 1
    assert seen(goes_on) == was
