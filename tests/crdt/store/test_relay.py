"""Blocks of other terminals on a terminal: merged, held, believed, passed on (invariants 2, 5, 6, 8, 10)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from crdt.block import Block, parse, seal
from crdt.certificate import AuthorCertificate, Limits, issue
from crdt.columns import encode
from crdt.documents import SignedDocument
from crdt.errors import (
    BadSignature,
    ChainBroken,
    ForkDetected,
    InputRefused,
    Malformed,
    NotPermitted,
    RefusalCode,
    Revoked,
    UnknownAuthor,
)
from crdt.facts import CardId, Delta, Draft, Kind, ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, ShortBlockFrame, Want
from crdt.frontier import GENESIS, Head
from crdt.numbering import restore
from crdt.open_segment import OpenSegment
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.settlement import UNMET, CardRow, Cursor, Page, beginning, seal_page
from crdt.store import pruning, relay
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, OpenTerminal, added_up, card, deltas_of

FARE = Draft(Kind.FARE, -250)
EVERYTHING = 1 << 24


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and three terminals."""
    fleet = Fleet(tmp_path, 3)
    yield fleet
    fleet.close()


def blocks(terminal: OpenTerminal, replica: ReplicaId | None = None, after: int = 0) -> list[Block]:
    return [parse(raw) for raw in terminal.ledger.blocks_after(after, EVERYTHING, replica)]


def give(giver: OpenTerminal, taker: OpenTerminal, max_bytes: int = EVERYTHING) -> int:
    """The taker asks for everything and gets one answer; how many blocks were new."""
    frontier = taker.ledger.frontier()
    want = Want({replica: head.seq for replica, head in frontier.items()}, others=True)
    frames = giver.ledger.answer(want, max_bytes)
    report = taker.ledger.merge(*taken_apart(frames))
    assert not report.refused
    return len(report.added)


def taken_apart(
    frames: Sequence[CertificateFrame | BlockFrame],
) -> tuple[list[bytes], list[AuthorCertificate]]:
    certificates = [frame.raw for frame in frames if isinstance(frame, CertificateFrame)]
    raws = [frame.raw for frame in frames if isinstance(frame, BlockFrame)]
    return raws, [AuthorCertificate.decode(raw) for raw in certificates]


def page(heads: dict[ReplicaId, Head], rows: list[CardRow], position: int, base: int = 0) -> Page:
    after = beginning(base)
    last = Cursor(position, replica=max(heads)) if heads else after
    until = Cursor(position, rows[-1].card) if rows else last
    return seal_page(
        world.HUB_KEY, world.FLEET, b"S" * 16, base, after, until, rows, position, heads, final=True
    )


def ride(terminal: OpenTerminal, count: int, first: int = 0) -> None:
    """So many blocks of one fare each."""
    for number in range(first, first + count):
        terminal.write(card(number % 4), [FARE], at_ms=1_000 + number)
        terminal.ledger.seal()


def test_invariant_6_what_a_peer_sealed_counts_once_before_and_after_it_is_settled(fleet: Fleet) -> None:
    one, other, third = fleet.terminals
    one.tap(card(1), at_ms=70)
    other.tap(card(1), at_ms=90)
    one.ledger.seal()
    assert give(one, other) == 1
    assert give(one, other) == 0
    assert other.ledger.view(card(1)).balance_minor == 0
    assert other.ledger.held() == (4, 500)
    assert other.ledger.books().balance
    other.reopen()
    assert other.ledger.view(card(1)).balance_minor == 0
    assert other.ledger.status()["foreign_blocks"] == 1
    fleet.push(one)
    fleet.pull(other)
    assert other.ledger.view(card(1)).balance_minor == 0
    assert other.ledger.held() == (2, 250)
    other.ledger.seal()
    assert give(other, third) == 2
    assert third.ledger.view(card(1)).balance_minor == 0
    assert third.ledger.books().voided_minor == 500
    fleet.heal()
    assert len({terminal.ledger.digest() for terminal in fleet.terminals}) == 1


def test_any_terminal_carries_anothers_blocks_to_the_hub(fleet: Fleet) -> None:
    """Relay: the author never meets the hub, and its fares are settled."""
    one, other, _ = fleet.terminals
    ride(one, 5)
    give(one, other)
    raws, certificates = taken_apart(other.ledger.answer(Want({one.ledger.replica: 2}), EVERYTHING))
    assert [parse(raw).header.first_seq for raw in raws] == [3, 4, 5]
    assert certificates == [one.author.certificate]
    raws, certificates = taken_apart(other.ledger.answer(Want({}, others=True), EVERYTHING))
    assert fleet.hub.merge(raws, certificates).result().added == tuple(blocks(one))
    assert fleet.hub.balance(card(0)).result() == -500


def test_an_answer_is_bounded_and_asking_again_goes_on(fleet: Fleet) -> None:
    one, other, third = fleet.terminals
    ride(one, 4)
    ride(other, 3)
    give(other, one)
    steps = 0
    while give(one, third, max_bytes=300):
        steps += 1
    assert steps >= 4
    assert third.ledger.frontier() == one.ledger.frontier()
    assert third.ledger.answer(Want({}), EVERYTHING) == []


def test_merging_is_a_hubs_merging(fleet: Fleet) -> None:
    """Invariants 8 and 10: the same refusals for the same reasons, and what is good beside it is taken."""
    one, other, _ = fleet.terminals
    ride(one, 3)
    first, second, third = (block.raw for block in blocks(one))
    modest = world.terminal(9, Limits(frozenset({Kind.FARE}), 0, 300, 0))
    topup = Delta(modest.key.replica, 1, card(1), Kind.TOPUP, 5, 1)
    minted = seal(modest.key, world.FLEET, [topup], GENESIS)
    damaged = second[:-1] + bytes([second[-1] ^ 1])
    given = [third, b"junk", first, minted.raw, damaged]
    report = other.ledger.merge(given, [one.author.certificate, modest.certificate])
    assert [block.raw for block in report.added] == [first]
    assert {type(each.error): each.raw for each in report.refused} == {
        Malformed: b"junk",
        NotPermitted: minted.raw,
        BadSignature: damaged,
        ChainBroken: third,
    }
    stranger = other.ledger.merge([minted.raw])
    assert isinstance(stranger.refused[0].error, NotPermitted)
    nobody = fleet.terminals[2].ledger.merge([first])
    assert isinstance(nobody.refused[0].error, UnknownAuthor)
    assert other.ledger.merge([second, third]).heads == {one.ledger.replica: one.ledger.own_head()}


def test_invariant_10_the_allowance_of_a_chain_counts_over_merges_and_restarts(fleet: Fleet) -> None:
    other = fleet.terminals[1]
    author = world.terminal(9, Limits(frozenset(Kind), 600, 600, 1_000))
    facts = [Delta(author.key.replica, seq, card(1), Kind.TOPUP, 500, seq) for seq in (1, 2, 3)]
    chain = author.blocks(facts, [1, 1, 1])
    assert not other.ledger.merge([block.raw for block in chain[:2]], [author.certificate]).refused
    other.reopen()
    refused = other.ledger.merge([chain[2].raw]).refused
    assert [type(each.error) for each in refused] == [NotPermitted]
    assert other.ledger.view(card(1)).balance_minor == 1_000


def test_what_is_settled_need_not_be_held_and_the_chain_goes_on_from_there(fleet: Fleet) -> None:
    """A terminal that never saw the beginning of a chain takes its newest block, and asks for no old ones."""
    one, other, third = fleet.terminals
    ride(one, 5)
    fleet.push(one)
    fleet.pull(other)
    one.write(card(1), [FARE])
    one.ledger.seal()
    report = other.ledger.merge([block.raw for block in blocks(one)], [one.author.certificate])
    assert (len(report.added), report.known, report.refused) == (1, 5, ())
    assert other.ledger.frontier()[one.ledger.replica] == one.ledger.own_head()
    assert other.ledger.settled_frontier()[one.ledger.replica].seq == 5
    assert other.ledger.pruned_until() == {one.ledger.replica: 5}
    assert other.ledger.view(card(1)).balance_minor == one.ledger.view(card(1)).balance_minor == -500
    # A third terminal without the settlement cannot take it yet, and other chains come first.
    ride(other, 1)
    frames = other.ledger.answer(Want({}, others=True), EVERYTHING)
    assert [parse(frame.raw).header.replica for frame in frames if isinstance(frame, BlockFrame)] == [
        other.ledger.replica,
        one.ledger.replica,
    ]
    report = third.ledger.merge(*taken_apart(frames))
    assert [type(each.error) for each in report.refused] == [ChainBroken]
    assert third.ledger.held()[0] == 1


def test_settled_blocks_of_a_peer_are_asked_for_once_at_most(fleet: Fleet) -> None:
    one, other, _ = fleet.terminals
    ride(one, 3)
    fleet.push(one)
    fleet.pull(other)
    assert one.ledger.replica not in other.ledger.frontier()
    report = other.ledger.merge(*taken_apart(one.ledger.answer(Want({}, others=True), EVERYTHING)))
    assert (report.known, report.added) == (3, ())
    assert other.ledger.frontier()[one.ledger.replica] == one.ledger.own_head()
    assert give(one, other) == 0


def test_a_gap_is_filled_from_its_end_by_blocks_that_the_chain_names(fleet: Fleet) -> None:
    """After a restored hub settled anew from further back; invariant 6 at every step."""
    one, other, _ = fleet.terminals
    ride(one, 6)
    chain = blocks(one)
    rows = [CardRow(card(number), 0, 0, UNMET) for number in range(4)]
    assert other.ledger.install(page({one.ledger.replica: chain[3].head}, rows, 5))
    assert len(other.ledger.merge([chain[4].raw, chain[5].raw], [one.author.certificate]).added) == 2
    assert other.ledger.install(page({one.ledger.replica: chain[0].head}, rows, 1))
    assert other.ledger.held() == (2, -500)
    forged = seal(one.author.key, world.FLEET, [deltas_of(chain[2])[0]], b"?" * 32)
    report = other.ledger.merge([chain[1].raw, forged.raw])
    assert [type(each.error) for each in report.refused] == [ChainBroken, ChainBroken]
    report = other.ledger.merge([chain[1].raw, chain[2].raw, chain[2].raw, chain[3].raw, chain[3].raw])
    assert (len(report.added), report.known, report.refused) == (3, 2, ()), "each block counts once"
    assert other.ledger.held() == (5, -1250)
    before = other.ledger.status()
    other.reopen()
    assert other.ledger.status() == before


def test_a_card_that_was_only_hotlisted_is_not_known_unless_it_is_held(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    one.ledger.install(page({}, [CardRow(card(1), 0, 0, UNMET), CardRow(card(2), 0, 0, 4)], 1))
    assert not one.ledger.view(card(1)).known
    assert not one.ledger.view(card(1)).hotlisted
    assert one.ledger.view(card(2)).hotlisted
    one.write(card(1), [FARE])
    assert one.ledger.view(card(1)).known


def test_blocks_go_short_where_the_settlement_gave_numbers(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    ids = [card(number) for number in range(60)]
    numbers = {which: number for number, which in enumerate(ids, 1) if number != 7}
    rows = [CardRow(which, 0, 0, 0, numbers.get(which, 0)) for which in ids]
    assert one.ledger.install(page({}, rows, 1))
    assert one.ledger.install(page({}, [CardRow(ids[0], 0, 0, 0, 61)], 2, base=1))
    for which in [*ids, card(99)]:
        one.write(which, [FARE])
    block = one.ledger.seal()
    assert block is not None
    (short,) = one.ledger.short_blocks([block.raw])
    assert isinstance(short, ShortBlockFrame)
    assert len(short.raw) < len(block.raw) - 200
    cards = {number: which for which, number in {**numbers, ids[0]: 61}.items()}
    assert restore(short.raw, lambda column: [cards.get(number) for number in column]) == block.raw
    one.write(card(98), [FARE])
    unknown = one.ledger.seal()
    assert unknown is not None
    assert one.ledger.short_blocks([unknown.raw]) == [BlockFrame(unknown.raw)]


def believe(giver: OpenTerminal, taker: OpenTerminal) -> bool:
    return taker.ledger.believe(giver.ledger.replica, giver.ledger.open_segment())


def test_two_doors_see_each_others_taps_before_they_are_sealed(fleet: Fleet) -> None:
    """Passback and balance hold across doors; each fact counts once on its way from open to settled."""
    front, rear, _ = fleet.terminals
    rear.ledger.merge([], [front.author.certificate])
    assert believe(front, rear)
    front.tap(card(1), at_ms=5_000)
    assert not rear.ledger.view(card(1)).known
    assert believe(front, rear)
    view = rear.ledger.view(card(1))
    assert (view.known, view.balance_minor, view.last_fare_at_ms) == (True, 250, 5_000)
    assert rear.ledger.held() == (0, 0)
    assert rear.ledger.status()["believed"] == 2
    rear.tap(card(1), at_ms=6_000)
    assert rear.ledger.view(card(1)).balance_minor == 0
    front.tap(card(2), at_ms=6_500)
    late = front.ledger.open_segment()
    front.ledger.seal()
    give(front, rear)
    assert rear.ledger.status()["believed"] == 0
    assert rear.ledger.view(card(1)).balance_minor == 0
    assert rear.ledger.believe(front.ledger.replica, late)  # sealed meanwhile: nothing of it counts twice
    assert rear.ledger.view(card(2)).balance_minor == 250
    assert rear.ledger.status()["believed"] == 0
    front.tap(card(2), at_ms=7_000)
    assert believe(front, rear)
    fleet.push(front)
    fleet.pull(rear)
    assert rear.ledger.status()["believed"] == 0
    assert rear.ledger.view(card(2)).balance_minor == 0
    front.tap(card(2), at_ms=7_500)
    assert believe(front, rear)
    rear.ledger.forget(front.ledger.replica)
    assert rear.ledger.view(card(2)).balance_minor == 0
    assert believe(front, rear)
    rear.reopen()
    assert rear.ledger.status()["believed"] == 0


@pytest.mark.parametrize("sealed", [False, True])
def test_what_a_peer_takes_over_from_its_former_identity_counts_once(fleet: Fleet, sealed: bool) -> None:
    """Invariant 6: its open taps are written again under the new one."""
    front, rear, _ = fleet.terminals
    before = front.author.certificate
    rear.ledger.merge([], [before])
    front.write(card(1), [FARE])
    assert believe(front, rear)
    front.ledger.suspend()
    key = world.terminal(9).key
    new = issue(world.FLEET_KEY, before.terminal, "", before.role, key.public_key, before.limits)
    front.become(world.Terminal(key, new))
    if sealed:
        front.ledger.seal()
        give(front, rear)
    else:
        rear.ledger.merge([], [new])
        assert believe(front, rear)
    assert rear.ledger.view(card(1)).balance_minor == -250


def test_invariant_11_an_opening_that_is_believed_meets_a_held_one(fleet: Fleet) -> None:
    front, rear, _ = fleet.terminals
    rear.ledger.merge([], [front.author.certificate])
    front.write(card(1), [Draft(Kind.OPENING, 700)])
    rear.write(card(1), [Draft(Kind.OPENING, 500)])
    assert believe(front, rear)
    assert rear.ledger.view(card(1)).balance_minor == 700


def test_invariant_6_an_open_segment_that_was_overtaken_takes_nothing_back(fleet: Fleet) -> None:
    """Two messages of a peer may pass each other: the one that says less was there first."""
    front, rear, *_ = fleet.terminals
    rear.ledger.merge([], [front.author.certificate])
    said = []
    for _ in range(2):
        said.append(front.ledger.open_segment())
        front.tap(card(1))
    for segment in (front.ledger.open_segment(), *said):
        assert rear.ledger.believe(front.ledger.replica, segment)
        assert rear.ledger.view(card(1)).balance_minor == front.ledger.view(card(1)).balance_minor
    front.ledger.seal()
    front.tap(card(1))
    rear.ledger.merge(front.ledger.blocks_after(0, 1 << 20))
    assert rear.ledger.believe(front.ledger.replica, front.ledger.open_segment())
    assert rear.ledger.view(card(1)).balance_minor == front.ledger.view(card(1)).balance_minor


def test_invariant_10_no_more_credit_is_believed_than_an_author_may_give(fleet: Fleet) -> None:
    author = world.terminal(9, Limits(frozenset(Kind), 2_000, 2_000, 3_000))
    rear = fleet.terminals[0].ledger
    rear.merge([], [author.certificate])
    openings = [Delta(author.key.replica, seq, card(seq), Kind.OPENING, 2_000, 1_000) for seq in (1, 2)]
    assert rear.believe(author.key.replica, OpenSegment(Head(0, GENESIS), 1, encode(openings[:1]).data))
    with pytest.raises(NotPermitted):
        rear.believe(author.key.replica, OpenSegment(Head(0, GENESIS), 2, encode(openings).data))
    assert [rear.view(card(seq)).balance_minor for seq in (1, 2)] == [2_000, 0]


def test_a_segment_counts_only_right_after_what_is_held(fleet: Fleet) -> None:
    front, rear, _ = fleet.terminals
    front.write(card(1), [FARE])
    front.ledger.seal()
    front.write(card(1), [FARE])
    rear.ledger.merge([], [front.author.certificate])
    assert not believe(front, rear)
    assert not rear.ledger.view(card(1)).known
    give(front, rear)
    assert believe(front, rear)
    assert rear.ledger.view(card(1)).balance_minor == -500


def test_invariant_8_an_open_segment_that_is_wrong_changes_nothing(fleet: Fleet) -> None:
    front, rear, _ = fleet.terminals
    modest = world.terminal(9, Limits(frozenset({Kind.FARE}), 0, 300, 0))
    give_certificates = [front.author.certificate, modest.certificate]
    rear.ledger.merge([], give_certificates)
    front.write(card(1), [FARE])
    front.ledger.seal()
    give(front, rear)
    front.write(card(1), [FARE])
    assert believe(front, rear)
    before = rear.ledger.view(card(1)), rear.ledger.status()
    good = front.ledger.open_segment()
    minted = encode([Delta(modest.key.replica, 1, card(1), Kind.TOPUP, 5, 1)]).data
    wrong: list[tuple[ReplicaId, OpenSegment, type[InputRefused]]] = [
        (front.ledger.replica, OpenSegment(good.after, 1, good.payload + b"?"), Malformed),
        (front.ledger.replica, OpenSegment(Head(1, b"?" * 32), 1, good.payload), ForkDetected),
        (front.ledger.replica, OpenSegment(Head(2**48 - 1, b"?" * 32), 1, good.payload), Malformed),
        (modest.key.replica, OpenSegment(Head(0, GENESIS), 1, minted), NotPermitted),
        (rear.ledger.replica, OpenSegment(Head(0, GENESIS), 0, b""), UnknownAuthor),
        (ReplicaId(b"?" * 16), OpenSegment(Head(0, GENESIS), 0, b""), UnknownAuthor),
    ]
    for replica, segment, error in wrong:
        with pytest.raises(error):
            rear.ledger.believe(replica, segment)
    assert (rear.ledger.view(card(1)), rear.ledger.status()) == before


def test_passback_goes_by_the_fare_that_is_nearest_in_time(fleet: Fleet) -> None:
    """A door whose clock is far ahead does not hide the fare that was taken here a moment ago."""
    front, rear, _ = fleet.terminals
    front.write(card(1), [FARE], at_ms=9_000_000)
    front.write(card(2), [FARE], at_ms=61_000)
    front.ledger.seal()
    rear.write(card(1), [FARE], at_ms=60_000)
    rear.write(card(2), [FARE], at_ms=1_000)
    give(front, rear)

    def last(which: CardId) -> int | None:
        return rear.ledger.transact(which, lambda view: ((), view.last_fare_at_ms), 62_000)

    assert (last(card(1)), last(card(2))) == (60_000, 61_000)
    assert rear.ledger.view(card(1)).last_fare_at_ms == 9_000_000
    rear.reopen()
    assert (last(card(1)), last(card(2))) == (60_000, 61_000)
    assert rear.ledger.last_at_ms() == 1_000


def test_a_large_merge_comes_in_transactions_short_enough_for_a_tap(fleet: Fleet) -> None:
    """Invariant 7; and the report is that of one merge."""
    one, other, _ = fleet.terminals
    ride(one, 3 * relay.CHUNK_BLOCKS + 1)
    writes: list[int] = []
    writer = other.database._writer
    wrote = writer._wrote

    def note(rows: int) -> None:
        writes.append(rows)
        wrote(rows)

    writer._wrote = note
    report = other.ledger.merge([block.raw for block in reversed(blocks(one))], [one.author.certificate])
    assert len(report.added) == 3 * relay.CHUNK_BLOCKS + 1
    assert report.heads == {one.ledger.replica: one.ledger.own_head()}
    assert len([rows for rows in writes if rows]) == 4
    assert max(writes) <= 2 * relay.CHUNK_BLOCKS + 4
    assert other.ledger.view(card(0)).balance_minor == one.ledger.view(card(0)).balance_minor


def revoked(version: int, cut_offs: dict[ReplicaId, int]) -> SignedDocument:
    body = Revocations(cut_offs).encode()
    return SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, version, body)


def test_a_revocation_holds_at_once_for_what_is_held_merged_and_believed(fleet: Fleet) -> None:
    """What a stolen terminal wrote after its cut-off stops counting; what it earned before counts on."""
    one, other, _ = fleet.terminals
    ride(one, 4)
    chain = blocks(one)
    other.ledger.merge([block.raw for block in chain[:3]], [one.author.certificate])
    other.write(card(9), [FARE])
    assert other.ledger.put_document(revoked(1, {one.ledger.replica: 2}))
    assert other.ledger.held() == (3, -750)
    assert other.ledger.frontier()[one.ledger.replica] == chain[1].head
    assert [entry.raw for entry in other.ledger.quarantined(9)] == [chain[2].raw]
    assert other.ledger.quarantined(9)[0].reason is RefusalCode.REVOKED
    report = other.ledger.merge([chain[2].raw, chain[3].raw])
    assert [type(each.error) for each in report.refused] == [Revoked, Revoked]
    with pytest.raises(Revoked):
        other.ledger.believe(
            one.ledger.replica, OpenSegment(chain[1].head, 1, encode(deltas_of(chain[2])).data)
        )
    assert not other.ledger.put_document(revoked(1, {}))
    before = other.ledger.status(), other.ledger.digest()
    other.reopen()
    assert (other.ledger.status(), other.ledger.digest()) == before
    assert other.ledger.revocations().cut_offs == {one.ledger.replica: 2}
    assert not other.ledger.suspended
    assert other.ledger.put_document(revoked(2, {}))
    assert len(other.ledger.merge([chain[2].raw, chain[3].raw]).added) == 2
    assert other.ledger.held() == (5, -1250)
    assert other.ledger.status()["quarantined"] == 0


def test_a_revoked_terminal_seals_no_more_and_uses_no_number_twice(fleet: Fleet) -> None:
    """Invariant 5, for one that is revoked by mistake and comes back as another."""
    one = fleet.terminals[0]
    ride(one, 3)
    head = one.ledger.own_head()
    one.ledger.put_document(revoked(1, {one.ledger.replica: 1}))
    assert one.ledger.suspended
    one.write(card(5), [FARE])
    assert one.ledger.seal() is None
    assert one.ledger.own_head() == head
    assert one.ledger.held() == (2, -500)
    one.reopen()
    assert one.ledger.suspended
    one.become(world.terminal(7))
    block = one.ledger.seal()
    assert block is not None
    assert [fact.card for fact in deltas_of(block)] == [card(5)]


@pytest.mark.parametrize("list_first", [True, False])
@pytest.mark.parametrize("held", [0, 2])
@pytest.mark.parametrize("cut_off", [4, 2, 0])
def test_what_was_only_settled_of_a_revoked_author_is_no_head_once_it_is_not(
    cut_off: int, held: int, list_first: bool, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 2: whoever knows its later facts from an earlier settlement alone agrees with the hub again,
    and has nothing to bring that it does not hold."""
    one, other, third = fleet.terminals
    for number in range(1, 4):
        one.tap(card(number))
        fleet.push(one)
        if number == 1:
            other.ledger.merge(one.ledger.blocks_after(0, EVERYTHING), [one.author.certificate])
    third.tap(card(4))
    fleet.push(third)
    other.ledger.merge(third.ledger.blocks_after(0, EVERYTHING), [third.author.certificate])
    fleet.pull(other)
    if not held:
        monkeypatch.setattr(pruning, "RECENT_FARES", 0)
        assert other.ledger.prune(1 << 40, 0, 0)
        assert not blocks(other, one.ledger.replica)
    listed = revoked(1, {one.ledger.replica: cut_off})
    fleet.hub.put_document(listed).result()
    if list_first:
        other.ledger.put_document(listed)
    fleet.pull(other)
    other.ledger.put_document(listed)
    theirs = fleet.hub.heads().result()
    assert other.ledger.frontier() == theirs
    assert other.ledger.digest() == fleet.hub.digest().result()
    other.reopen()
    assert other.ledger.frontier() == theirs


def test_an_unreadable_list_of_revocations_changes_nothing(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    broken = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 5, b"\xff\xff")
    with pytest.raises(InputRefused):
        one.ledger.put_document(broken)
    assert one.ledger.document(REVOKED_DOCUMENT) is None


def test_the_believed_state_adds_up_to_every_fact_held(fleet: Fleet) -> None:
    """Invariant 3 with relayed blocks: Σ deltas = Σ balances, by the model's sums."""
    one, other, third = fleet.terminals
    for number in range(12):
        one.tap(card(number % 5))
        other.tap(card(number % 3))
        if number % 4 == 0:
            one.ledger.seal()
            other.ledger.seal()
    for giver in (one, other):
        giver.ledger.seal()
        give(giver, third)
    expected = added_up([*one.written, *other.written])
    for which, state in expected.items():
        assert third.ledger.view(which).balance_minor == state.balance_minor
    books = third.ledger.books()
    assert books.balance
    assert books.deltas_minor == sum(fact.amount_minor for fact in [*one.written, *other.written])
