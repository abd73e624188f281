"""A revocation far below the end of a chain is carried out in steps: nobody's merge waits for all of it.

After each step the ledger is one that never had what has left (invariants 2 and 3), and at the end it is what
a single step would have made of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from crdt.block import Block, seal
from crdt.documents import SignedDocument
from crdt.errors import RefusalCode, Revoked
from crdt.facts import Delta, Kind
from crdt.ledger import Ledger
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store import cutting, papers
from crdt.store.completeness import AuthorsDay, Behind
from crdt.store.cutting import Cut, cut_some
from crdt.store.days import QUARTER_MS, Day
from crdt.store.hub import Change, HubLedger
from crdt.store.resolutions import SAID
from tests.crdt import world
from tests.crdt.store.branches import COMMON, MINE, as_of, caught_up, facts, renewed
from tests.crdt.store.depots import Depot
from tests.crdt.store.fleet import Fleet, added_up, card, deltas_of
from tests.crdt.store.quarantined import at_rest, in_quarantine
from tests.crdt.store.servers import Server
from tests.crdt.store.sharing import hubs, on_servers, store_of, until
from tests.crdt.store.stores import NewFleet
from tests.crdt.store.test_adopting_put_back import balances

ONE, OTHER, STRANGER = world.TERMINALS
SIZES = [2, 3, 1, 2, 4, 1, 2, 3]
FACTS = sum(SIZES)
CUT_OFF = SIZES[0]
STEP = 4
DAY = Day(0, 96 * QUARTER_MS, 1)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of four facts."""
    monkeypatch.setattr(cutting, "STEP_FACTS", STEP)


def chain(author: world.Terminal = ONE, sizes: Sequence[int] = SIZES) -> list[Block]:
    """Openings and rides of a few cards, a quarter of an hour apart."""
    facts = [
        Delta(
            author.key.replica,
            seq,
            card(seq % 5),
            Kind.OPENING if seq % 7 == 0 else Kind.FARE,
            500 + seq if seq % 7 == 0 else -seq,
            seq * QUARTER_MS + author.certificate.terminal[-1],
        )
        for seq in range(1, sum(sizes) + 1)
    ]
    return author.blocks(facts, list(sizes))


def give(hub: HubLedger, blocks: Sequence[Block]) -> None:
    """Merge, and wait for the history."""
    assert not hub.merge([block.raw for block in blocks], world.CERTIFICATES).result().refused
    caught_up(hub)


def document(revocations: Revocations, version: int = 1) -> SignedDocument:
    """A list, signed."""
    return SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, version, revocations.encode())


def listed(fleet: Fleet, revocations: Revocations) -> None:
    """The list is stored as by a process that ends before anything leaves the record, and nobody goes on."""
    at_rest(fleet.hub)
    fleet.hub.close()

    def work(connection: Connection) -> None:
        papers.put_document(connection, document(revocations))
        cutting.begin(connection, revocations)

    fleet.hub_database.write_and_wait(work)


def steps(fleet: Fleet, at_ms: int = 9) -> Iterator[Cut]:
    """One after the other, until there is no more to do."""
    more = True
    while more:
        step = fleet.hub_database.write_and_wait(lambda connection: cut_some(connection, at_ms))
        more = step.more
        yield step


def check_as_if_it_had_only(hub: HubLedger, blocks: Sequence[Block], others: Sequence[Block]) -> None:
    """Digest, books, history and quarantine are those of a ledger that took `blocks` and refused `others`."""
    model = Ledger(world.FLEET_KEY.public_key)
    model.merge([block.raw for block in blocks], world.CERTIFICATES)
    assert hub.digest().result() == model.digest()
    assert hub.books().result() == model.books()
    assert hub.heads().result() == model.frontier
    facts = hub.latest(1000).result()
    assert added_up(facts) == model.cards()
    assert len(facts) == sum(block.header.count for block in blocks)
    assert {entry.raw for entry in in_quarantine(hub).result()} == {block.raw for block in others}
    figures = hub.report(DAY).result().restated
    assert sum(one.facts for one in figures.values()) == len(facts)


def test_invariant_3_after_each_step_the_ledger_is_one_that_never_had_what_has_left(fleet: Fleet) -> None:
    """Books, digest, heads, history and figures; and no step takes more than its facts and one block."""
    mine, others = chain(), chain(OTHER)
    give(fleet.hub, [*mine[:4], *others, *mine[4:]])
    listed(fleet, Revocations({ONE.key.replica: CUT_OFF}))
    left = list(mine)
    for step in steps(fleet):
        gone = len(left) - sum(
            block.last_seq <= fleet.hub.heads().result()[ONE.key.replica].seq for block in left
        )
        facts = [block.header.count for block in left[len(left) - gone :]]
        assert sum(facts[1:]) < STEP
        left = left[: len(left) - gone]
        check_as_if_it_had_only(fleet.hub, [*others, *left], mine[len(left) :])
        assert step.change is not None
        assert step.change.gone is not step.more
    assert left == mine[:1]
    assert list(steps(fleet)) == [Cut(None, more=False)]


def test_invariant_6_a_terminal_that_pulls_between_the_steps_is_exact(new_fleet: NewFleet) -> None:
    """A settlement signed halfway through says what its heads say, and the next one goes on from there."""
    with closing(new_fleet(1)) as fleet:
        hub, terminal = fleet.hub, fleet.terminals[0]
        give(hub, chain(OTHER))
        fleet.pull(terminal)
        listed(fleet, Revocations({OTHER.key.replica: CUT_OFF}))
        for _ in steps(fleet):
            fleet.pull(terminal)
            assert terminal.settled_heads == hub.heads().result()
            known = {number: terminal.ledger.view(card(number)).balance_minor for number in range(5)}
            assert known == {number: hub.balance(card(number)).result() for number in range(5)}


def test_it_goes_on_by_itself_after_a_restart(fleet: Fleet) -> None:
    """Invariant 4: nothing but the database says what is left to do."""
    mine = chain()
    give(fleet.hub, mine)
    listed(fleet, Revocations({ONE.key.replica: CUT_OFF}))
    next(steps(fleet))
    assert fleet.hub.heads().result()[ONE.key.replica].seq > CUT_OFF
    fleet.hub_database.close()
    fleet.open_hub()
    at_rest(fleet.hub)
    check_as_if_it_had_only(fleet.hub, mine[:1], mine[1:])


def test_what_is_much_leaves_in_the_background_and_listeners_hear_of_all_of_it(fleet: Fleet) -> None:
    """Invariant 7: the operator's own request waits for one step."""
    hub, mine = fleet.hub, chain()
    give(hub, mine)
    heard: list[Change] = []
    stop = hub.on_commit(heard.append)
    assert hub.put_document(document(Revocations({ONE.key.replica: CUT_OFF}))).result()
    at_rest(hub)
    stop()
    check_as_if_it_had_only(hub, mine[:1], mine[1:])
    gone = [change for change in heard if change.suspects]
    assert len(gone) > 1
    assert {one for change in gone for one in change.cards} == {
        fact.card for block in mine[1:] for fact in deltas_of(block)
    }


def test_invariant_2_nothing_beyond_comes_in_while_the_rest_leaves(fleet: Fleet) -> None:
    """Neither what continues the chain, nor a branch of it: that is a fork, proven by what still counts."""
    hub, mine = fleet.hub, chain()
    give(hub, mine[:-1])
    listed(fleet, Revocations({ONE.key.replica: CUT_OFF}))
    next(steps(fleet))
    fact = Delta(ONE.key.replica, mine[3].header.first_seq, card(1), Kind.FARE, -77, 5)
    branch = seal(ONE.key, world.FLEET, [fact], mine[3].header.previous)
    refused = hub.merge([mine[-1].raw, branch.raw]).result().refused
    assert [type(one.error) for one in refused] == [Revoked, Revoked]
    for _ in steps(fleet):
        pass
    check_as_if_it_had_only(hub, mine[:1], [*mine[1:], branch])
    (fork,) = [one for one in in_quarantine(hub).result() if one.raw == branch.raw]
    assert (fork.reason, fork.counted) == (RefusalCode.FORK_DETECTED, mine[3].raw)


def test_nobody_is_shown_what_is_still_to_leave(fleet: Fleet) -> None:
    """Invariant 4: a restored terminal that compares with it would not write it again."""
    hub, mine = fleet.hub, chain()
    give(hub, mine)
    listed(fleet, Revocations({ONE.key.replica: CUT_OFF}))
    next(steps(fleet))
    assert hub.heads().result()[ONE.key.replica].seq > CUT_OFF
    assert hub.blocks_after(ONE.key.replica, 0, 1 << 20).result() == [mine[0].raw]
    assert hub.blocks_after(ONE.key.replica, CUT_OFF, 1 << 20).result() == []


@pytest.mark.parametrize("cut_off", [sum(SIZES[:6]), FACTS, 0])
def test_a_list_that_moves_the_cut_off_in_between_holds_from_then_on(fleet: Fleet, cut_off: int) -> None:
    """What had left and counts by the new one comes back; what counts no more by it leaves too."""
    mine = chain()
    give(fleet.hub, mine)
    listed(fleet, Revocations({ONE.key.replica: CUT_OFF}))
    next(steps(fleet))
    next(steps(fleet))
    hub = HubLedger(fleet.hub_database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB)
    assert hub.put_document(document(Revocations({ONE.key.replica: cut_off}), 2)).result()
    at_rest(hub)
    caught_up(hub)
    counted = [block for block in mine if block.last_seq <= cut_off]
    check_as_if_it_had_only(hub, counted, mine[len(counted) :])
    hub.close()


def test_invariant_3_a_list_that_ends_a_cut_has_copies_of_what_had_left_booked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub had taken its copy back for a ride that the first step takes out, and none comes after it."""
    monkeypatch.setattr(cutting, "STEP_FACTS", 1)
    late = facts((1, Kind.FARE, -5), (3, Kind.FARE, -70), first=4)
    all_of_it = [*COMMON, *MINE, *late]
    one = ONE.key.replica
    with closing(Depot(tmp_path)) as depot:
        depot.revoke(Revocations().with_replaced({one: 3}))
        depot.give(ONE.blocks(all_of_it, [3, 1]))
        depot.adopt()
        depot.revoke(Revocations())
        assert depot.believes() == balances(all_of_it)
        moved = [document(Revocations({one: cut_off}), 9 + cut_off) for cut_off in (3, 4)]
        for putting in [depot.hub.put_document(each) for each in moved]:
            assert putting.result()
        assert depot.believes() == balances(all_of_it)


def test_a_closed_day_is_restated_as_by_one_step(fleet: Fleet) -> None:
    """Issue: late blocks restate a closed day as an explicit adjustment, and so do those that leave."""
    give(fleet.hub, chain())
    closed = fleet.hub.close_day(DAY, 5).result()
    listed(fleet, Revocations({ONE.key.replica: CUT_OFF}))
    for _ in steps(fleet, at_ms=9):
        pass
    (adjustment,) = fleet.hub.report(DAY).result().adjustments
    assert (adjustment.learnt_ms, adjustment.replica) == (9, ONE.key.replica)
    assert adjustment.figures.facts == CUT_OFF - FACTS
    assert closed.figures[ONE.key.replica].plus(adjustment.figures).facts == CUT_OFF


def test_a_day_is_not_called_complete_while_it_goes_on_and_is_closed_only_after_it(fleet: Fleet) -> None:
    """Proof of completeness: a day is never complete with figures that are not what counts."""
    hub = fleet.hub
    give(hub, chain())
    listed(fleet, Revocations({ONE.key.replica: CUT_OFF}))
    next(steps(fleet))
    assert hub.day_of([ONE.key.replica], DAY).result() == AuthorsDay(Behind(), None)
    report = hub.close_day(DAY, 9).result()
    assert report.figures[ONE.key.replica].facts == CUT_OFF
    assert report.adjustments == ()
    figures = hub.day_of([ONE.key.replica], DAY).result().figures
    assert figures is not None
    assert figures.facts == CUT_OFF


def test_of_a_replaced_identity_all_that_leaves_is_said_to_come_again(fleet: Fleet) -> None:
    """Its terminal writes it again by itself, whichever step took it out."""
    give(fleet.hub, chain())
    one = ONE.key.replica
    assert fleet.hub.put_document(document(Revocations().with_replaced({one: CUT_OFF}))).result()
    at_rest(fleet.hub)
    entries = in_quarantine(fleet.hub).result()
    assert [entry.resolution for entry in entries] == [SAID] * (len(SIZES) - 1)


def test_authors_that_lose_little_each_share_a_step(fleet: Fleet) -> None:
    """And none of them is left behind."""
    chains = {author: chain(author, [1, 1, 1]) for author in world.TERMINALS}
    for blocks in chains.values():
        give(fleet.hub, blocks)
    listed(fleet, Revocations({author.key.replica: 1 for author in chains}))
    assert len(list(steps(fleet))) == 2
    kept = [blocks[0] for blocks in chains.values()]
    check_as_if_it_had_only(fleet.hub, kept, [block for blocks in chains.values() for block in blocks[1:]])


@on_servers
def test_another_process_goes_on_where_one_has_ended(url: str, server: Server) -> None:
    """Several hub processes: what is left to do is everybody's."""
    with hubs(url, 2) as (ended, other):
        mine = chain()
        give(ended, mine)
        revocations = Revocations({ONE.key.replica: CUT_OFF})

        def work(connection: Connection) -> None:
            papers.put_document(connection, document(revocations))
            cutting.begin(connection, revocations)

        store_of(ended).write_and_wait(work)
        until(lambda: other.heads().result()[ONE.key.replica].seq == CUT_OFF)
        until(lambda: len(in_quarantine(other).result()) == len(SIZES) - 1)


@on_servers
def test_invariant_3_another_process_compares_where_one_has_ended_with_the_cut(
    url: str, server: Server
) -> None:
    """The ride had come from two terminals, and the hub had taken back its earlier identity's copy of it."""
    earlier = renewed(world.Terminal(world.HUB_KEY, world.HUB), b"O")
    ride = facts((1, Kind.FARE, -70), author=OTHER)
    revocations = Revocations({OTHER.key.replica: 0})

    def work(connection: Connection) -> None:
        papers.put_document(connection, document(revocations))
        cutting.begin(connection, revocations)
        while cut_some(connection, 9).more:
            pass

    with hubs(url, 2) as (ended, other):
        for author, delta in ((earlier, as_of(ride, earlier)), (OTHER, ride)):
            raws = [block.raw for block in author.blocks(delta, [])]
            assert not ended.merge(raws, [author.certificate]).result().refused
            at_rest(ended)
        until(lambda: other.lag().result() == 0 and other.balance(card(1)).result() == -70)
        store_of(ended).write_and_wait(work)
        store_of(ended).close()
        until(lambda: bool(in_quarantine(other).result()) and other.balance(card(1)).result() == -70)
