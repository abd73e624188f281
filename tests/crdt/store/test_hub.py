"""A hub's ledger: the join on disk, settlement positions, the hub's own facts, and the history."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from crdt.block import Block, seal
from crdt.certificate import Limits, Role, issue
from crdt.cursor import START, Cursor, beginning
from crdt.errors import (
    BadSignature,
    ChainBroken,
    ForeignFleet,
    ForkDetected,
    InputRefused,
    Malformed,
    MisuseError,
    NotPermitted,
    Overloaded,
    UnknownAuthor,
)
from crdt.facts import Books, CardId, CardState, Delta, Draft, Kind
from crdt.frontier import GENESIS, Head
from crdt.ledger import Ledger, MergeReport
from crdt.settlement import HOTLISTED, NO_SERIES, UNMET, CardRow, Page, verify_page
from crdt.store import intake as module
from crdt.store.database import Database
from crdt.store.hub import Change, HubLedger
from tests.crdt import world
from tests.crdt.store.branches import caught_up
from tests.crdt.store.fleet import KEY, added_up, card, deltas_of
from tests.crdt.store.stores import NewFleet

TOPUP = Draft(Kind.TOPUP, 1000)
PATIENCE_S = 30
ONE, OTHER, STRANGER = world.TERMINALS  # a fleet of two does not have the last


@pytest.fixture
def hub(new_fleet: NewFleet) -> Iterator[HubLedger]:
    """A new hub that knows the terminals."""
    fleet = new_fleet(0)
    fleet.hub.merge([], world.CERTIFICATES).result()
    yield fleet.hub
    fleet.close()


def fares(author: world.Terminal, cards: list[int], first: int = 1, amount: int = -250) -> list[Delta]:
    """One fare each on these cards, at times of its own."""
    at_ms = 1_000 * author.certificate.terminal[-1]
    return [
        Delta(author.key.replica, seq, card(number), Kind.FARE, amount, at_ms + seq)
        for seq, number in enumerate(cards, first)
    ]


def merge(hub: HubLedger, *blocks: Block) -> MergeReport:
    """Merge and wait."""
    return hub.merge([block.raw for block in blocks], world.CERTIFICATES).result()


def refusals(report: MergeReport) -> list[type[InputRefused]]:
    """Why blocks were refused."""
    return [type(refused.error) for refused in report.refused]


@given(blocks=world.chains(), data=st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_invariant_2_any_order_repetition_and_grouping_give_the_models_digest(
    blocks: list[Block], data: st.DataObject, new_fleet: NewFleet
) -> None:
    """Merge is a join: shuffled, repeated, split over calls that wait together, with a restart in between."""
    model = Ledger(world.FLEET_KEY.public_key)
    model.merge([block.raw for block in blocks], world.CERTIFICATES)
    with closing(new_fleet(0)) as fleet:
        left = [block.raw for block in data.draw(st.permutations(blocks + blocks[:2]))]
        while left:
            size = data.draw(st.integers(1, 5))
            groups = [left[at : at + size] for at in range(0, len(left), size)]
            merging = [fleet.hub.merge(group, world.CERTIFICATES) for group in groups]
            reports = [future.result() for future in merging]
            assert all(set(refusals(report)) <= {ChainBroken} for report in reports)
            left = [refused.raw for report in reports for refused in report.refused]
            if data.draw(st.booleans()):
                fleet.hub_database.close()
                fleet.open_hub()
        assert fleet.hub.digest().result() == model.digest()
        assert fleet.hub.books().result() == model.books()
        assert fleet.hub.heads().result() == model.frontier
        assert {row.card: row.state for row in fleet.hub.cards(limit=100).result()} == model.cards()


def test_a_merge_is_there_after_a_restart(new_fleet: NewFleet) -> None:
    fleet = new_fleet(0)
    report = merge(fleet.hub, *ONE.blocks(fares(ONE, [1, 2, 1]), [2]))
    assert len(report.added) == 2
    assert report.heads == {ONE.key.replica: report.added[-1].head}
    digest = fleet.hub.digest().result()
    fleet.hub_database.close()
    fleet.open_hub()
    assert fleet.hub.digest().result() == digest
    assert fleet.hub.balance(card(1)).result() == -500
    assert fleet.hub.balance(card(9)).result() == 0
    assert fleet.hub.card(card(9)).result() is None
    assert merge(fleet.hub, *report.added).known == 2
    fleet.close()


def test_known_blocks_are_known_and_change_nothing(hub: HubLedger) -> None:
    """Invariant 2: a repeated exchange moves neither money nor position."""
    blocks = ONE.blocks(fares(ONE, [1, 2, 3]), [1, 1])
    merge(hub, *blocks)
    before = hub.totals().result(), hub.digest().result()
    report = merge(hub, *blocks, blocks[0])
    assert (report.added, report.known, report.refused) == ((), 4, ())
    assert report.heads == {ONE.key.replica: blocks[-1].head}
    assert before == (hub.totals().result(), hub.digest().result())


def test_a_gap_is_refused_and_mends_itself(hub: HubLedger) -> None:
    blocks = ONE.blocks(fares(ONE, [1, 2, 3]), [1, 1])
    report = merge(hub, blocks[0], blocks[2])
    assert refusals(report) == [ChainBroken]
    assert "2 to 2 are missing" in str(report.refused[0].error)
    assert report.heads == {ONE.key.replica: blocks[0].head}
    assert not refusals(merge(hub, blocks[2], blocks[1]))


def test_a_block_that_follows_another_one_than_is_held_is_refused(hub: HubLedger) -> None:
    merge(hub, *ONE.blocks(fares(ONE, [1]), []))
    stray = seal(ONE.key, world.FLEET, fares(ONE, [1], first=2), b"?" * 32)
    assert refusals(merge(hub, stray)) == [ChainBroken]


@pytest.mark.parametrize("sizes", [[1, 1, 1], [3], [2, 1]])
def test_invariant_5_a_fork_is_refused_whatever_its_blocks_are_cut_like(
    hub: HubLedger, sizes: list[int]
) -> None:
    """Nobody's money is counted twice: other facts under numbers that are held are never added."""
    held = ONE.blocks(fares(ONE, [1, 2, 3]), [2])
    merge(hub, *held)
    before = hub.totals().result(), hub.digest().result()
    fork = ONE.blocks(fares(ONE, [1, 2, 3], amount=-100), sizes)
    report = merge(hub, *fork)
    assert ForkDetected in refusals(report)
    assert set(refusals(report)) <= {ForkDetected, ChainBroken}
    assert report.added == ()
    assert before == (hub.totals().result(), hub.digest().result())


def test_a_bad_block_does_not_take_the_good_ones_with_it(hub: HubLedger) -> None:
    """One batch: garbage, a forged block, an unknown author, a gap; and what is good is stored."""
    good = OTHER.blocks(fares(OTHER, [1, 2]), [1])
    mine = ONE.blocks(fares(ONE, [1, 2, 3]), [1, 1])
    forged = bytes([*mine[0].raw[:-1], mine[0].raw[-1] ^ 1])
    stranger = world.terminal(9)
    unknown = stranger.blocks(fares(stranger, [1]), [])[0]
    given_blocks = [b"garbage", good[1].raw, forged, unknown.raw, mine[2].raw, good[0].raw]
    report = hub.merge(given_blocks, world.CERTIFICATES).result()
    assert [block.raw for block in report.added] == [good[0].raw, good[1].raw]
    reasons = {refused.raw: type(refused.error) for refused in report.refused}
    assert reasons == {
        b"garbage": Malformed,
        forged: BadSignature,
        unknown.raw: UnknownAuthor,
        mine[2].raw: ChainBroken,
    }
    assert hub.heads().result() == {OTHER.key.replica: good[1].head}


def test_invariant_10_what_an_author_may_not_write_is_refused(hub: HubLedger) -> None:
    modest = world.terminal(7, Limits(frozenset({Kind.FARE}), 0, 300))
    report = hub.merge(
        [block.raw for block in modest.blocks(fares(modest, [1], amount=-301), [])], [modest.certificate]
    ).result()
    assert refusals(report) == [NotPermitted]


def test_certificates_are_checked_and_a_key_is_certified_once(hub: HubLedger) -> None:
    certificate = ONE.certificate
    foreign = issue(
        world.OTHER_FLEET_KEY,
        certificate.terminal,
        certificate.name,
        Role.TERMINAL,
        ONE.key.public_key,
        world.ANYTHING,
    )
    second = issue(
        world.FLEET_KEY, certificate.terminal, "other", Role.TERMINAL, ONE.key.public_key, world.ANYTHING
    )
    assert refusals(hub.merge([], [foreign, second]).result()) == [ForeignFleet, NotPermitted]
    assert hub.authors()[ONE.key.replica] == certificate
    assert not hub.enrol(certificate).result()
    with pytest.raises(NotPermitted):
        hub.enrol(second).result()
    new = world.terminal(8).certificate
    assert hub.enrol(new).result()
    assert hub.authors()[new.replica] == new
    assert hub.authors() is hub.authors(), "asking costs nothing, however large the fleet"


def test_an_author_enrolled_once_needs_no_certificate_later(new_fleet: NewFleet) -> None:
    fleet = new_fleet(0)
    blocks = ONE.blocks(fares(ONE, [1, 2]), [1])
    assert refusals(fleet.hub.merge([blocks[0].raw]).result()) == [UnknownAuthor]
    fleet.hub.merge([blocks[0].raw], [ONE.certificate]).result()
    fleet.hub_database.close()
    fleet.open_hub()
    assert not fleet.hub.merge([blocks[1].raw]).result().refused
    fleet.close()


def test_merges_that_wait_together_share_a_commit_and_keep_apart(hub: HubLedger) -> None:
    """Each merge has its own report and position, and one of a replica's two rivals wins."""
    release = _hold_writer(hub)
    ours = ONE.blocks(fares(ONE, [1, 2]), [1])
    rival = ONE.blocks(fares(ONE, [1], amount=-100), [])
    others = OTHER.blocks(fares(OTHER, [3]), [])
    merging = [hub.merge([block.raw]) for block in (ours[0], others[0], rival[0], ours[0], ours[1])]
    release()
    wait(merging, PATIENCE_S)
    reports = [future.result() for future in merging]
    added = [block for report in reports for block in report.added]
    assert others[0] in added
    assert (ours[0] in added) != (rival[0] in added)
    assert hub.totals().result().position == len([report for report in reports if report.added])
    assert hub.books().result().balance


def _hold_writer(hub: HubLedger) -> Callable[[], None]:
    go, running = threading.Event(), threading.Event()

    def hold(_connection: Connection) -> None:
        running.set()
        assert go.wait(PATIENCE_S)

    hub._database.write(hold)
    assert running.wait(PATIENCE_S)
    return go.set


def test_a_hub_takes_no_more_than_it_can_hold_in_memory(
    hub: HubLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 8: memory stays bounded however fast blocks come."""
    block = ONE.blocks(fares(ONE, [1]), [])[0]
    monkeypatch.setattr(module, "MAX_MERGING_BYTES", 2 * len(block.raw))
    release = _hold_writer(hub)
    accepted = [hub.merge([block.raw]) for _ in range(2)]
    with pytest.raises(Overloaded):
        hub.merge([block.raw]).result()
    release()
    wait(accepted, PATIENCE_S)
    assert sum(len(future.result().added) for future in accepted) == 1
    assert merge(hub, block).known == 1


def test_opening_balances_count_once_and_the_books_say_so(hub: HubLedger) -> None:
    """Invariants 3 and 11: the smaller opening is voided, here, in the books and after a restart."""
    deltas = [
        Delta(author.key.replica, 1, card(1), Kind.OPENING, amount, 5)
        for author, amount in zip(world.TERMINALS, (300, 500, 500), strict=True)
    ]
    for author, delta in zip(world.TERMINALS, deltas, strict=True):
        merge(hub, *author.blocks([delta], []))
    assert hub.balance(card(1)).result() == 500
    assert hub.books().result() == Books(1300, 500, 800)
    both = [Delta(ONE.key.replica, seq, card(1), Kind.OPENING, 700 + seq, 6) for seq in (2, 3)]
    first = hub.heads().result()[ONE.key.replica]
    merge(hub, seal(ONE.key, world.FLEET, both, first.hash))
    assert hub.books().result() == Books(1300 + 702 + 703, 703, 2002)


# ---- Settlement ----


def every_page(hub: HubLedger, limit: int, base: int = 0) -> list[Page]:
    """The pages a terminal with `base` installed gets."""
    pages: list[Page] = []
    series, after = (b"S" * 16, beginning(base)) if base else (NO_SERIES, START)
    while not pages or not pages[-1].final:
        pages.append(verify_page(hub.page(series, base, after, limit).result(), world.HUB))
        series, after = pages[-1].series, pages[-1].until
    return pages


@pytest.mark.parametrize("limit", [1, 3, 6, 7, 4096])
def test_pages_give_every_card_and_every_head_once(hub: HubLedger, limit: int) -> None:
    merge(hub, *ONE.blocks(fares(ONE, [1, 2, 3, 4, 5, 6]), []))
    pages = every_page(hub, limit)
    assert [row.card for page in pages for row in page.rows] == [card(number) for number in range(1, 7)]
    assert [page.final for page in pages] == [False] * (-(-6 // limit) - 1) + [True]
    assert [page.heads for page in pages if page.heads] == [hub.heads().result()]
    assert pages[-1].position == 1


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_full_load_gives_what_was_there_by_id_and_then_what_changed(hub: HubLedger, limit: int) -> None:
    """Both sides read and write their tables in order; what changes meanwhile comes once, where it is passed
    already or not."""
    merge(hub, *ONE.blocks(fares(ONE, [5, 3, 1]), []))
    merge(hub, *OTHER.blocks(fares(OTHER, [6, 2, 4]), []))
    assert hub.set_hotlisted(card(8), True).result()
    begun = hub.totals().result().position
    first = verify_page(hub.page(NO_SERIES, 0, START, limit).result(), world.HUB)
    assert [row.card for row in every_page(hub, limit)[-1].rows][-1:] == [card(8)]
    head = hub.heads().result()[ONE.key.replica]
    merge(hub, seal(ONE.key, world.FLEET, fares(ONE, [1, 6], head.seq + 1), head.hash))
    assert hub.set_hotlisted(card(8), False).result()
    pages, after = [first], first.until
    while not pages[-1].final:
        pages.append(verify_page(hub.page(first.series, 0, after, limit).result(), world.HUB))
        after = pages[-1].until
    known = [page for page in pages if page.until.since or page.ends_inventory]
    assert {page.until.since or begun for page in known} == {begun}
    early = [row.card for page in known for row in page.rows]
    assert early == sorted(early)
    late = [row.card for page in pages if page not in known for row in page.rows]
    assert late == [card(1), card(6), card(8)]
    assert set(early) | set(late) == {card(number) for number in (1, 2, 3, 4, 5, 6, 8)}
    staged = {row.card: row.state for page in pages for row in page.rows if row.sum_minor}
    assert sum(state.sum_minor for state in staged.values()) == -250 * 8
    heads = {replica: head for page in pages for replica, head in page.heads.items()}
    assert heads == hub.heads().result()


@pytest.mark.parametrize("last", [{"replica": bytes(15) + b"\1"}, {"card": card(2)}])
def test_invariant_8_a_page_looks_at_so_many_cards_however_old_the_inventory_is(
    hub: HubLedger, last: dict[str, bytes]
) -> None:
    """Anybody may ask from any place in one, of which no card may be left: that must not read them all."""
    merge(hub, *ONE.blocks(fares(ONE, [1]), []))
    merge(hub, *OTHER.blocks(fares(OTHER, list(range(1, 10))), []))
    asked = Cursor(0, **last, since=1, seen=1)
    page = verify_page(hub.page(b"S" * 16, 0, asked, 3).result(), world.HUB)
    at = 3 if "replica" in last else 5
    assert (page.rows, page.final, page.until) == ((), False, Cursor(0, card(at), since=1, seen=2))
    given, heads = set[CardId](), set[bytes]()
    while not page.final:
        page = verify_page(hub.page(b"S" * 16, 0, page.until, 3).result(), world.HUB)
        given |= {row.card for row in page.rows}
        heads |= {*page.heads}
    assert given == {card(number) for number in range(1, 10)}
    assert heads == {OTHER.key.replica}


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_invariant_6_a_full_load_is_exact_whatever_is_listed_and_ridden_meanwhile(
    new_fleet: NewFleet, limit: int
) -> None:
    """Cards before and behind the cursor, met and unmet, go on the hotlist and off it between its pages."""
    fleet = new_fleet(1)
    hub, one = fleet.hub, fleet.terminals[0]
    hub.merge([], world.CERTIFICATES).result()
    numbers = range(1, 13)
    merge(hub, *OTHER.blocks(fares(OTHER, list(range(2, 9))), []))
    for number in (1, 9, 12):
        hub.set_hotlisted(card(number), True).result()
    listed = {1, 9, 12}
    for step in range(3 * len(numbers)):
        if fleet.pull_one(one, limit):
            break
        number = 1 + 5 * step % len(numbers)
        for each in (number, len(numbers) + 1 - number):
            listed ^= {each}
            assert hub.set_hotlisted(card(each), each in listed).result()
        if step % 3 == 0:
            hub.append(card(number), [TOPUP], 5).result()
    while not fleet.pull_one(one, limit):
        pass
    assert {number for number in numbers if one.ledger.view(card(number)).hotlisted} == listed
    assert one.ledger.digest() == hub.digest().result()
    fleet.close()


def test_increments_start_after_the_installed_position(hub: HubLedger) -> None:
    merge(hub, *ONE.blocks(fares(ONE, [1, 2, 3]), []))
    merge(hub, *OTHER.blocks(fares(OTHER, [2, 9]), []))
    (page,) = every_page(hub, 100, base=1)
    assert [(row.card, row.sum_minor) for row in page.rows] == [(card(2), -500), (card(9), -250)]
    assert list(page.heads) == [OTHER.key.replica]
    (nothing,) = every_page(hub, 100, base=2)
    assert (nothing.rows, nothing.heads, nothing.position) == ((), {}, 2)


@pytest.mark.parametrize(
    ("series", "base", "after"),
    [
        (NO_SERIES, 0, START),
        (b"?" * 16, 1, beginning(1)),
        (b"?" * 16, 0, Cursor(1, card(1))),
        (b"S" * 16, 7, beginning(7)),
        (b"S" * 16, 1, beginning(0)),
        (b"S" * 16, 0, Cursor(1, card(1))),
        (b"S" * 16, 0, Cursor(1, card(1), seen=9)),
        (b"S" * 16, 0, Cursor(0, card(1), since=1, seen=9)),
        (b"S" * 16, 1, Cursor(0, card(1), since=1, seen=1)),
    ],
)
def test_a_terminal_the_hub_cannot_continue_begins_anew(
    hub: HubLedger, series: bytes, base: int, after: Cursor
) -> None:
    merge(hub, *ONE.blocks(fares(ONE, [1, 2]), []))
    page = hub.page(series, base, after).result()
    assert page.restarts
    assert len(page.rows) == 2
    assert page.series == b"S" * 16


def test_a_card_that_was_only_hotlisted_once_is_not_known(new_fleet: NewFleet) -> None:
    """Blocked by mistake and unblocked: it is met for the first time when it rides, as any other card."""
    fleet = new_fleet(2)
    hub, (early, late) = fleet.hub, fleet.terminals
    merge(hub, *STRANGER.blocks(fares(STRANGER, [5]), []))
    hub.set_hotlisted(card(1), True).result()
    assert hub.card(card(1)).result() == CardRow(card(1), 0, 0, HOTLISTED | UNMET)
    fleet.pull(early)
    assert not fleet.pull_one(late, limit=1)
    assert hub.set_hotlisted(card(1), False).result()
    assert not hub.set_hotlisted(card(1), False).result()
    assert hub.card(card(1)).result() is None
    assert hub.cards().result() == [CardRow(card(5), -250, 0, number=1)]
    assert hub.totals().result().cards == 1
    fleet.pull(early)
    fleet.pull(late, limit=1)
    assert not early.ledger.view(card(1)).hotlisted
    assert not late.ledger.view(card(1)).known
    assert early.ledger.digest() == late.ledger.digest() == hub.digest().result()
    hub.append(card(1), [TOPUP], 5).result()
    assert hub.card(card(1)).result() == CardRow(card(1), 1000, 0, number=2)
    fleet.pull(late)
    assert late.ledger.view(card(1)).known
    fleet.close()


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_card_taken_off_the_hotlist_while_one_is_paging_is_taken_off_there(
    new_fleet: NewFleet, limit: int
) -> None:
    """A removal is left out only where the card was never on the list."""
    fleet = new_fleet(1)
    hub, one = fleet.hub, fleet.terminals[0]
    for number in range(1, 5):
        hub.set_hotlisted(card(number), True).result()
    done = fleet.pull_one(one, limit)
    for number in (2, 4):
        hub.set_hotlisted(card(number), False).result()
    while not done:
        done = fleet.pull_one(one, limit)
    fleet.pull(one, limit)
    assert [one.ledger.view(card(number)).hotlisted for number in range(1, 5)] == [True, False, True, False]
    fleet.close()


def test_a_card_listed_and_taken_off_again_while_one_loads_is_not_left_refused(new_fleet: NewFleet) -> None:
    """On the list when the inventory passed it, and off it afterwards: the load has either both or none."""
    fleet = new_fleet(1)
    hub, one = fleet.hub, fleet.terminals[0]
    merge(hub, *OTHER.blocks(fares(OTHER, [1, 2, 3]), []))
    assert not fleet.pull_one(one, 1)
    hub.append(card(1), [TOPUP], 5).result()
    assert hub.set_hotlisted(card(9), True).result()
    page = fleet.next_page(one, 1)
    while not page.ends_inventory:
        fleet.install(one, page)
        page = fleet.next_page(one, 1)
    fleet.install(one, page)
    assert hub.set_hotlisted(card(9), False).result()
    fleet.pull(one, 1)
    assert not one.ledger.view(card(9)).hotlisted
    fleet.close()


def test_a_free_ride_makes_a_card_known(new_fleet: NewFleet) -> None:
    """Sums of zero do not mean that nobody has met the card."""
    fleet = new_fleet(1)
    fleet.hub.set_hotlisted(card(1), True).result()
    ride = Delta(STRANGER.key.replica, 1, card(1), Kind.FARE, 0, 5)
    merge(fleet.hub, *STRANGER.blocks([ride], []))
    fleet.hub.set_hotlisted(card(1), False).result()
    assert fleet.hub.card(card(1)).result() == CardRow(card(1), 0, 0, number=1)
    fleet.pull(fleet.terminals[0])
    assert fleet.terminals[0].ledger.view(card(1)).known
    fleet.close()


def test_positions_only_grow_and_each_change_has_its_own(hub: HubLedger) -> None:
    changes: list[Change] = []
    stop = hub.on_commit(changes.append)
    merge(hub, *ONE.blocks(fares(ONE, [1, 2]), []))
    hub.append(card(1), [TOPUP], 5).result()
    hub.set_hotlisted(card(2), True).result()
    caught_up(hub)
    stop()
    hub.set_hotlisted(card(2), False).result()
    merges = [change for change in changes if not change.history]
    assert [change.position for change in merges] == [1, 2, 3]
    assert [sorted(change.cards) for change in merges] == [[card(1), card(2)], [card(1)], [card(2)]]
    assert [list(change.replicas) for change in merges] == [[ONE.key.replica], [hub.replica], []]
    assert {one for change in changes if change.history for one in change.cards} == {card(1), card(2)}


def test_a_listener_that_fails_harms_nobody(hub: HubLedger, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_change: Change) -> None:
        raise ZeroDivisionError

    hub.on_commit(broken)
    assert hub.append(card(1), [TOPUP], 5).result().state.balance_minor == 1000
    assert "a listener of the ledger failed" in caplog.text


# ---- The hub's own facts ----


def test_a_booking_is_sealed_at_once_and_says_the_balance(hub: HubLedger) -> None:
    merge(hub, *ONE.blocks(fares(ONE, [1]), []))
    booking = hub.append(card(1), [TOPUP, Draft(Kind.ADJUSTMENT, -1)], 5).result()
    assert booking.state == CardState(749, 0)
    assert not booking.repeated
    assert hub.heads([hub.replica]).result() == {hub.replica: booking.head}
    (raw,) = hub.blocks_after(hub.replica, 0, 1 << 20).result()
    model = Ledger(world.FLEET_KEY.public_key)
    model.merge([raw, *hub.blocks_after(ONE.key.replica, 0, 1).result()], [world.HUB, ONE.certificate])
    assert model.digest() == hub.digest().result()


def test_a_request_books_once_also_after_a_restart(new_fleet: NewFleet) -> None:
    """A form that is sent twice tops up once."""
    fleet = new_fleet(0)
    first = [fleet.hub.append(card(1), [TOPUP], 5, request="form 1") for _ in range(3)]
    assert [future.result().repeated for future in first] == [False, True, True]
    fleet.hub_database.close()
    fleet.open_hub()
    again = fleet.hub.append(card(1), [TOPUP], 5, request="form 1").result()
    assert again.repeated
    assert again.state.balance_minor == 1000
    assert fleet.hub.append(card(1), [TOPUP], 5, request="form 2").result().state.balance_minor == 2000
    assert fleet.hub.append(card(1), [TOPUP], 5).result().state.balance_minor == 3000
    fleet.close()


def test_bookings_that_wait_together_make_one_chain(hub: HubLedger) -> None:
    release = _hold_writer(hub)
    booking = [hub.append(card(number), [TOPUP], number) for number in range(10)]
    bad = hub.append(card(1), [], 5)
    release()
    assert [future.result().head.seq for future in booking] == list(range(1, 11))
    assert isinstance(bad.exception(), MisuseError)
    assert hub.books().result() == Books(10_000, 10_000, 0)


def test_the_hub_keeps_to_its_own_limits(tmp_path: Path) -> None:
    modest = issue(
        world.FLEET_KEY,
        world.HUB.terminal,
        "depot",
        Role.HUB,
        world.HUB_KEY.public_key,
        Limits(frozenset({Kind.TOPUP}), 500, 0),
    )
    with Database.open(tmp_path / "hub.db", KEY) as database:
        hub = HubLedger(database, world.FLEET_KEY.public_key, world.HUB_KEY, modest)
        with pytest.raises(NotPermitted):
            hub.append(card(1), [TOPUP], 5).result()
        assert hub.append(card(1), [Draft(Kind.TOPUP, 500)], 5).result().head.seq == 1


def test_a_hubs_ledger_belongs_to_one_fleet(tmp_path: Path) -> None:
    with Database.open(tmp_path / "hub.db", KEY) as database:
        HubLedger(database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB)
        foreign = issue(
            world.OTHER_FLEET_KEY,
            world.HUB.terminal,
            "depot",
            Role.HUB,
            world.HUB_KEY.public_key,
            world.ANYTHING,
        )
        with pytest.raises(ForeignFleet):
            HubLedger(database, world.OTHER_FLEET_KEY.public_key, world.HUB_KEY, foreign)
        with pytest.raises(MisuseError):
            HubLedger(database, world.FLEET_KEY.public_key, ONE.key, world.HUB)


# ---- History ----


def test_the_history_follows_the_merges(hub: HubLedger) -> None:
    blocks = ONE.blocks(fares(ONE, [1, 2, 1, 3]), [2])
    merge(hub, *blocks)
    hub.append(card(1), [TOPUP], 9).result()
    caught_up(hub)
    facts = [delta for block in blocks for delta in deltas_of(block)]
    latest = hub.latest().result()
    assert latest[1:] == facts[::-1]
    assert (latest[0].replica, latest[0].kind, latest[0].amount_minor) == (hub.replica, Kind.TOPUP, 1000)
    assert hub.latest(2).result() == latest[:2]
    about = [delta for delta in latest if delta.card == card(1)]
    assert hub.history(card(1)).result() == about
    assert hub.history(card(1), 1).result() == about[:1]
    assert hub.history(card(8)).result() == []


def test_the_history_may_lag_and_catches_up_after_a_restart(new_fleet: NewFleet) -> None:
    """Rows are a projection of the blocks, each of which comes into it once."""
    fleet = new_fleet(0)
    release = _hold_writer(fleet.hub)
    merging = fleet.hub.merge(
        [block.raw for block in ONE.blocks(fares(ONE, [1] * 30), [1] * 30)], [ONE.certificate]
    )
    release()
    merging.result()
    fleet.hub_database.close()
    fleet.open_hub()
    caught_up(fleet.hub)
    before = fleet.hub.latest(100).result()
    assert [delta.seq for delta in before] == list(range(30, 0, -1))
    assert added_up(before) == {card(1): CardState(-7500, 0)}
    fleet.close()


def test_cards_are_listed_in_portions(hub: HubLedger) -> None:
    merge(hub, *ONE.blocks(fares(ONE, [5, 3, 1, 4, 2]), []))
    first = hub.cards(limit=3).result()
    rest = hub.cards(after=first[-1].card, limit=3).result()
    assert [row.card for row in first + rest] == [card(number) for number in range(1, 6)]
    totals = hub.totals().result()
    assert (totals.cards, totals.deltas, totals.position) == (5, 5, 1)
    assert totals.books.balance


def test_a_card_that_is_only_listed_is_in_no_digest(hub: HubLedger) -> None:
    """A hotlist entry is no fact: ledgers that have it and ledgers that do not agree."""
    merge(hub, *ONE.blocks(fares(ONE, [1]), []))
    digest = hub.digest().result()
    assert hub.set_hotlisted(CardId(b"\x09" * 7), True).result()
    assert hub.digest().result() == digest
    row = hub.card(CardId(b"\x09" * 7)).result()
    assert row is not None
    assert row.hotlisted
    with pytest.raises(MisuseError):
        hub.set_hotlisted(CardId(b"abc"), True).result()


def test_a_hub_without_blocks_is_well(hub: HubLedger) -> None:
    assert hub.heads([ONE.key.replica]).result() == {}
    assert hub.latest().result() == []
    assert hub.books().result() == Books(0, 0, 0)
    assert merge(hub).heads == {}
    (page,) = every_page(hub, 10)
    assert page.rows == ()
    assert hub.append(card(1), [TOPUP], 1).result().head != Head(0, GENESIS)
