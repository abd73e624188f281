"""Revocations at the hub: what counts is what the list lets count, whenever it came (issue: revocation)."""

from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.block import Block, seal
from crdt.cursor import beginning
from crdt.documents import SignedDocument
from crdt.errors import ForkDetected, Malformed, RefusalCode, Revoked
from crdt.facts import CardState, Delta, Kind, ReplicaId
from crdt.ledger import Ledger
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.settlement import UNMET
from crdt.store import quarantine
from crdt.store.hub import Change, HubLedger
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, added_up, card, deltas_of
from tests.crdt.store.quarantined import in_quarantine
from tests.crdt.store.stores import NewFleet

ONE, OTHER, STRANGER = world.TERMINALS


@pytest.fixture
def fleet(new_fleet: NewFleet) -> Iterator[Fleet]:
    """A new hub that knows the terminals, and two terminals."""
    fleet = new_fleet(2)
    fleet.hub.merge([], world.CERTIFICATES).result()
    yield fleet
    fleet.close()


def put(hub: HubLedger, version: int, cut_offs: Mapping[ReplicaId, int]) -> bool:
    """Give the hub a list."""
    body = Revocations(cut_offs).encode()
    document = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, version, body)
    return hub.put_document(document).result()


def rides(author: world.Terminal, count: int, sizes: list[int], amount: int = -250) -> list[Block]:
    """Fares on card 1."""
    deltas = [
        Delta(author.key.replica, seq, card(1), Kind.FARE, amount, 1_000) for seq in range(1, count + 1)
    ]
    return author.blocks(deltas, sizes)


def raws(blocks: list[Block]) -> list[bytes]:
    """The blocks' bytes."""
    return [block.raw for block in blocks]


@given(
    blocks=world.chains(),
    lists=st.lists(
        st.dictionaries(
            st.sampled_from([author.key.replica for author in world.TERMINALS]), st.integers(0, 12)
        ),
        min_size=1,
        max_size=3,
    ),
    data=st.data(),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_invariant_2_what_counts_depends_on_the_blocks_and_the_newest_list_alone(
    blocks: list[Block], lists: list[dict[ReplicaId, int]], data: st.DataObject, new_fleet: NewFleet
) -> None:
    """Balances, openings, books, heads and history are those of a ledger that never had the others."""
    with closing(new_fleet(0)) as fleet:
        hub = fleet.hub
        parts = [data.draw(st.integers(0, len(blocks)), label="given by") for _ in lists]
        for version, (cut_offs, part) in enumerate(zip(lists, sorted(parts), strict=True), 1):
            hub.merge(raws(blocks[:part]), world.CERTIFICATES).result()
            assert put(hub, version, cut_offs)
        hub.merge(raws(blocks), world.CERTIFICATES).result()
        counted = [
            block for block in blocks if block.last_seq <= lists[-1].get(block.header.replica, block.last_seq)
        ]
        model = Ledger(world.FLEET_KEY.public_key)
        model.merge(raws(counted), world.CERTIFICATES)
        assert hub.digest().result() == model.digest()
        assert hub.books().result() == model.books()
        assert hub.heads().result() == model.frontier
        known = {row.card: row.state for row in hub.cards(limit=100).result()}
        assert known == model.cards()
        assert {entry.raw for entry in in_quarantine(hub).result()} == set(raws(blocks)) - set(raws(counted))
        assert put(hub, 9, {})
        model.merge(raws(blocks))
        assert hub.digest().result() == model.digest()
        assert in_quarantine(hub).result() == []
        fleet.hub_database.close()
        fleet.open_hub()
        while fleet.hub.lag().result():
            pass
        assert added_up(fleet.hub.latest(1000).result()) == model.cards()


@pytest.mark.parametrize("stolen_minor", range(-12, 0))
def test_invariant_5_the_chain_that_counted_before_counts_again_and_no_branch_of_a_thief(
    fleet: Fleet, stolen_minor: int
) -> None:
    """First there wins, whatever the hashes: terminals have settled it, and its facts were never disputed."""
    hub = fleet.hub
    blocks = rides(STRANGER, 4, [2])
    later = [Delta(STRANGER.key.replica, seq, card(1), Kind.FARE, stolen_minor, 2_000) for seq in (3, 4, 5)]
    stolen = seal(STRANGER.key, world.FLEET, later[:1], blocks[0].hash)
    follows = seal(STRANGER.key, world.FLEET, later[1:], stolen.hash)
    hub.merge(raws(blocks)).result()
    assert put(hub, 1, {STRANGER.key.replica: 2})
    hub.merge([follows.raw, stolen.raw]).result()
    hub.merge(raws(blocks)).result()
    assert put(hub, 2, {STRANGER.key.replica: 5})
    assert hub.heads().result()[STRANGER.key.replica] == blocks[1].head
    assert hub.balance(card(1)).result() == -1000
    entries = in_quarantine(hub).result()
    assert {entry.raw for entry in entries} == {stolen.raw, follows.raw}
    assert {entry.reason for entry in entries} == {RefusalCode.FORK_DETECTED}
    assert entries[0].counted == blocks[1].raw


def test_evidence_that_is_judged_anew_is_kept_however_full_its_authors_share_is(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 5: the proof of a fork, a hub's own bookings that it had lost among it, was here already."""
    hub, blocks = fleet.hub, rides(STRANGER, 3, [2])
    later = [Delta(STRANGER.key.replica, 4, card(1), Kind.FARE, -70, 2_000)]
    branch = seal(STRANGER.key, world.FLEET, later, b"of a block that was not brought!")
    hub.merge(raws(blocks[:1])).result()
    assert put(hub, 1, {STRANGER.key.replica: 3})
    hub.merge([branch.raw]).result()
    hub.merge(raws(blocks)).result()
    assert [entry.reason for entry in in_quarantine(hub).result()] == [RefusalCode.REVOKED]
    monkeypatch.setattr(quarantine, "MAX_QUARANTINED_BYTES", 0)
    assert put(hub, 2, {STRANGER.key.replica: 5})
    (entry,) = in_quarantine(hub).result()
    assert (entry.raw, entry.reason) == (branch.raw, RefusalCode.FORK_DETECTED)


def test_what_was_written_after_the_cut_off_leaves_the_balances_and_terminals_hear_of_it(
    fleet: Fleet,
) -> None:
    """Positions move: the next increment carries the cards."""
    hub, terminal = fleet.hub, fleet.terminals[1]
    blocks = rides(STRANGER, 4, [2])
    hub.merge(raws(blocks)).result()
    fleet.pull(terminal)
    assert terminal.ledger.view(card(1)).balance_minor == -1000
    heard: list[Change] = []
    stop = hub.on_commit(heard.append)
    assert put(hub, 1, {STRANGER.key.replica: 3})
    stop()
    # The first: it may have compared since. And on a server database, what the hub reads by cursor may tell
    # of the merge before a second time.
    change = next(change for change in heard if change.suspects)
    assert list(change.cards) == [card(1)]
    assert list(change.replicas) == list(change.suspects) == [STRANGER.key.replica]
    assert hub.balance(card(1)).result() == -500
    page = fleet.next_page(terminal)
    assert [(row.card, row.sum_minor) for row in page.rows] == [(card(1), -500)]
    assert page.heads == {STRANGER.key.replica: blocks[0].head}
    (entry,) = in_quarantine(hub).result()
    assert (entry.raw, entry.reason, entry.proof) == (blocks[1].raw, RefusalCode.REVOKED, None)


def test_what_a_revoked_author_writes_later_is_refused_kept_and_flagged(fleet: Fleet) -> None:
    blocks = rides(ONE, 4, [2])
    put(fleet.hub, 1, {ONE.key.replica: 2})
    report = fleet.hub.merge(raws(blocks)).result()
    assert [block.raw for block in report.added] == raws(blocks[:1])
    assert [type(refused.error) for refused in report.refused] == [Revoked]
    (flag,) = fleet.hub.flags().result()
    assert (flag.replica, flag.code) == (ONE.key.replica, RefusalCode.REVOKED)
    assert [entry.raw for entry in in_quarantine(fleet.hub).result()] == raws(blocks[1:])


def test_invariant_11_the_opening_that_remains_counts_and_a_card_nobody_met_gets_one_again(
    fleet: Fleet,
) -> None:
    """A stolen terminal gave openings: its own count no more, and hide nobody else's."""
    hub = fleet.hub

    def opening(author: world.Terminal, number: int, amount: int) -> Delta:
        return Delta(author.key.replica, 1, card(number), Kind.OPENING, amount, 5)

    honest, thief = opening(ONE, 1, 300), opening(OTHER, 1, 900)
    made_up = Delta(OTHER.key.replica, 2, card(2), Kind.OPENING, 900, 5)
    hub.merge(raws(ONE.blocks([honest], []))).result()
    hub.merge(raws(OTHER.blocks([thief, made_up], []))).result()
    before = hub.totals().result().position
    assert hub.balance(card(1)).result() == 900
    put(hub, 1, {OTHER.key.replica: 0})
    row = hub.card(card(1)).result()
    assert row is not None
    assert row.state == CardState(0, 300)
    assert hub.card(card(2)).result() is None
    assert hub.books().result() == (300, 300, 0)
    assert hub.totals().result().cards == 1
    page = hub.page(b"S" * 16, before, beginning(before)).result()
    assert {(row.card, row.flags, row.number) for row in page.rows} == {(card(1), 0, 1), (card(2), UNMET, 2)}
    assert hub.history(card(2)).result() == []


def test_a_list_that_is_not_newer_changes_nothing_and_one_that_does_not_read_is_refused(fleet: Fleet) -> None:
    """Invariant 8, and settings documents: the larger version wins."""
    blocks = rides(ONE, 2, [])
    fleet.hub.merge(raws(blocks)).result()
    assert put(fleet.hub, 2, {OTHER.key.replica: 0})
    assert not put(fleet.hub, 1, {ONE.key.replica: 0})
    assert fleet.hub.balance(card(1)).result() == -500
    broken = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 3, b"\xff")
    with pytest.raises(Malformed):
        fleet.hub.put_document(broken).result()
    document = fleet.hub.document(REVOKED_DOCUMENT).result()
    assert document is not None
    assert document.version == 2


def test_what_comes_back_is_judged_by_the_chain_that_counts_now(fleet: Fleet) -> None:
    """Another branch took the place of the revoked one meanwhile: then the old one is a proven fork."""
    hub = fleet.hub
    mine, rival = rides(ONE, 4, [2]), rides(ONE, 3, [2])
    hub.merge(raws(mine)).result()
    put(hub, 1, {ONE.key.replica: 3})
    hub.merge(raws(rival)).result()
    assert hub.balance(card(1)).result() == -750
    put(hub, 2, {})
    assert hub.balance(card(1)).result() == -750
    (entry,) = in_quarantine(hub).result()
    assert (entry.raw, entry.reason) == (mine[1].raw, RefusalCode.FORK_DETECTED)
    assert entry.proof is not None
    entry.proof.verify(ONE.certificate)
    report = hub.merge(raws(mine)).result()
    assert [type(refused.error) for refused in report.refused] == [ForkDetected]


def test_the_history_is_complete_before_anything_is_taken_out_of_it(fleet: Fleet) -> None:
    """Though it lags: what a card's remaining facts are is read from it."""
    blocks = rides(ONE, 30, [1] * 30)
    merging = fleet.hub.merge(raws(blocks))
    assert put(fleet.hub, 1, {ONE.key.replica: 12})
    merging.result()
    put(fleet.hub, 2, {ONE.key.replica: 11})
    while fleet.hub.lag().result():
        pass
    facts = [delta for block in blocks[:11] for delta in deltas_of(block)]
    assert fleet.hub.history(card(1)).result() == facts[::-1]
    assert fleet.hub.balance(card(1)).result() == 11 * -250


@pytest.mark.parametrize("together", [True, False])
def test_a_late_block_that_denies_what_counts_is_a_fork(fleet: Fleet, together: bool) -> None:
    """Kept as merely late, it would be offered for counting when the cut-off moves; also in one merge."""
    counts = rides(ONE, 2, [2])
    beside = rides(ONE, 4, [2, 2], amount=-100)[1]
    put(fleet.hub, 1, {ONE.key.replica: 2})
    if together:
        fleet.hub.merge(raws([*counts, beside])).result()
    else:
        fleet.hub.merge(raws(counts)).result()
        fleet.hub.merge([beside.raw]).result()
    (entry,) = in_quarantine(fleet.hub).result()
    assert (entry.reason, entry.counted) == (RefusalCode.FORK_DETECTED, counts[0].raw)
