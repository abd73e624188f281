"""Forks at the hub: the first chain counts, the other is kept as proof, no money moves (invariant 5)."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.block import Block, seal
from crdt.certificate import Limits, Role, issue
from crdt.documents import SignedDocument
from crdt.errors import (
    BadSignature,
    ChainBroken,
    ForkDetected,
    NotPermitted,
    RefusalCode,
    Revoked,
    UnknownAuthor,
)
from crdt.facts import CERTIFIED, Delta, Draft, Kind, TerminalId
from crdt.frontier import GENESIS
from crdt.ledger import Ledger, MergeReport
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from crdt.store import quarantine
from crdt.store.hub import Change, HubLedger
from crdt.store.resolutions import OPEN
from tests.crdt import world
from tests.crdt.store.branches import renewed
from tests.crdt.store.fleet import card
from tests.crdt.store.quarantined import in_quarantine
from tests.crdt.store.stores import NewFleet

ONE, OTHER, _ = world.TERMINALS


@pytest.fixture
def hub(new_fleet: NewFleet) -> Iterator[HubLedger]:
    """A new hub that knows the terminals."""
    fleet = new_fleet(0)
    fleet.hub.merge([], world.CERTIFICATES).result()
    yield fleet.hub
    fleet.close()


def fares(first: int, count: int, amount: int = -250, author: world.Terminal = ONE) -> list[Delta]:
    """One fare each on cards 1, 2, 3."""
    return [
        Delta(author.key.replica, seq, card(1 + seq % 3), Kind.FARE, amount, 1_000 + seq)
        for seq in range(first, first + count)
    ]


def after(block: Block, amount: int, count: int = 1) -> Block:
    """A block of ONE that goes on after this one."""
    return seal(ONE.key, world.FLEET, fares(block.last_seq + 1, count, amount), block.hash)


def merge(hub: HubLedger, *blocks: Block) -> MergeReport:
    """Merge and wait."""
    return hub.merge([block.raw for block in blocks]).result()


def errors(report: MergeReport) -> list[type[Exception]]:
    """Why blocks were refused."""
    return [type(refused.error) for refused in report.refused]


def test_invariant_5_a_fork_is_refused_proved_and_told_and_moves_no_money(hub: HubLedger) -> None:
    """A terminal's image was copied: both write number 3."""
    mine = ONE.blocks(fares(1, 4), [2])
    rival = after(mine[0], -100)
    merge(hub, *mine)
    before = hub.digest().result(), hub.books().result(), hub.totals().result().position
    heard: list[Change] = []
    hub.on_commit(heard.append)
    assert errors(merge(hub, rival)) == [ForkDetected]
    assert before == (hub.digest().result(), hub.books().result(), hub.totals().result().position)
    (entry,) = in_quarantine(hub).result()
    assert (entry.raw, entry.counted, entry.resolution) == (rival.raw, mine[1].raw, OPEN)
    assert entry.proof is not None
    entry.proof.verify(ONE.certificate)
    (flag,) = hub.flags().result()
    assert (flag.replica, flag.code, flag.seq) == (ONE.key.replica, RefusalCode.FORK_DETECTED, 3)
    assert [set(change.suspects) for change in heard if change.suspects] == [{ONE.key.replica}]


def test_a_quarantined_block_given_again_is_refused_again_and_changes_nothing(hub: HubLedger) -> None:
    mine = ONE.blocks(fares(1, 2), [])
    rival = ONE.blocks(fares(1, 2, -100), [])[0]
    merge(hub, *mine)
    merge(hub, rival)
    before = in_quarantine(hub).result(), hub.flags().result()
    heard: list[Change] = []
    hub.on_commit(heard.append)
    assert errors(merge(hub, rival, rival)) == [ForkDetected] * 2
    assert before == (in_quarantine(hub).result(), hub.flags().result())
    assert not [change for change in heard if change.suspects]


def test_a_block_that_denies_the_head_is_evidence_too(hub: HubLedger) -> None:
    """It begins right after the head and follows another block: refused as ever, and kept."""
    mine = ONE.blocks(fares(1, 2), [])[0]
    rival = ONE.blocks(fares(1, 2, -100), [])[0]
    denying = after(rival, -7)
    merge(hub, mine)
    assert errors(merge(hub, denying)) == [ChainBroken]
    (entry,) = in_quarantine(hub).result()
    assert entry.proof is not None
    entry.proof.verify(ONE.certificate)
    assert errors(merge(hub, rival)) == [ForkDetected]
    assert {one.raw for one in in_quarantine(hub).result()} == {denying.raw, rival.raw}


@pytest.mark.parametrize("together", [True, False])
def test_the_whole_branch_is_kept_however_much_longer_it_is(hub: HubLedger, together: bool) -> None:
    """What continues a block in quarantine belongs to it, though the numbers before it seem to be missing."""
    mine = ONE.blocks(fares(1, 2), [])[0]
    branch = [ONE.blocks(fares(1, 2, -100), [])[0]]
    for _ in range(3):
        branch.append(after(branch[-1], -9, 5))
    merge(hub, mine)
    for part in [branch] if together else [[block] for block in branch]:
        assert set(errors(merge(hub, *part))) == {ForkDetected}
    assert [entry.raw for entry in in_quarantine(hub).result()] == [block.raw for block in branch]


def test_a_gap_is_no_evidence(hub: HubLedger) -> None:
    blocks = ONE.blocks(fares(1, 6), [2, 2, 2])
    assert errors(merge(hub, blocks[0], blocks[2])) == [ChainBroken]
    assert in_quarantine(hub).result() == []
    assert hub.flags().result() == []


def test_invariant_8_only_signed_blocks_of_enrolled_authors_are_kept(hub: HubLedger) -> None:
    """Garbage must not fill the disk."""
    merge(hub, *ONE.blocks(fares(1, 2), []))
    rival = ONE.blocks(fares(1, 2, -100), [])[0]
    unsigned = rival.raw[:-1] + bytes([rival.raw[-1] ^ 1])
    stranger = world.terminal(9)
    foreign = stranger.blocks(fares(1, 2, author=stranger), [])[0]
    report = hub.merge([unsigned, foreign.raw]).result()
    assert {type(refused.error) for refused in report.refused} == {BadSignature, UnknownAuthor}
    assert in_quarantine(hub).result() == []
    assert hub.flags().result() == []


def test_invariant_8_an_author_has_only_so_much_room_in_quarantine(
    hub: HubLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = ONE.blocks(fares(1, 1), [])[0]
    rivals = [ONE.blocks(fares(1, 1, -amount), [])[0] for amount in range(1, 6)]
    monkeypatch.setattr(quarantine, "MAX_QUARANTINED_BYTES", 3 * (len(mine.raw) + len(rivals[0].raw)))
    merge(hub, mine)
    for rival in rivals:
        assert errors(merge(hub, rival)) == [ForkDetected]
    assert len(in_quarantine(hub).result()) == 3
    full = [flag for flag in hub.flags().result() if flag.code is RefusalCode.TOO_LARGE]
    assert [flag.replica for flag in full] == [ONE.key.replica]
    assert "no more of its blocks are kept" in full[0].sentence
    theirs = OTHER.blocks(fares(1, 1, author=OTHER), [])[0]
    rival = OTHER.blocks(fares(1, 1, -7, OTHER), [])[0]
    merge(hub, theirs, rival)
    assert len(in_quarantine(hub).result()) == 4


def forked(monkeypatch: pytest.MonkeyPatch, author: world.Terminal) -> list[bytes]:
    """Two blocks of the same numbers, of which the evidence fills a share by itself."""
    raws = [author.blocks(fares(1, 1, -minor, author), [])[0].raw for minor in (250, 7)]
    monkeypatch.setattr(quarantine, "MAX_QUARANTINED_BYTES", sum(map(len, raws)) * 3 // 2)
    return raws


def test_invariant_8_a_terminal_has_one_share_whatever_it_writes_as(
    hub: HubLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new identity would be another one, and a terminal gets those for the asking."""
    again = renewed(ONE)
    hub.merge([], [again.certificate]).result()
    for author in (ONE, again, OTHER):
        hub.merge(forked(monkeypatch, author)).result()
    kept = {entry.replica for entry in in_quarantine(hub).result()}
    assert kept == {ONE.key.replica, OTHER.key.replica}


def test_invariant_8_an_identity_that_comes_with_its_evidence_has_no_share_of_its_own(
    hub: HubLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose terminal it is, is known within the merge that brings both."""
    for author in (ONE, renewed(ONE)):
        hub.merge(forked(monkeypatch, author), [author.certificate]).result()
    assert {entry.replica for entry in in_quarantine(hub).result()} == {ONE.key.replica}


def test_invariant_8_what_a_hub_has_lost_of_its_own_is_kept_however_much_it_is(
    hub: HubLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal drops its copy once the hub refuses it as a fork: that has to mean that the hub has it."""
    own = world.HUB_KEY.replica
    hub.append(card(1), [Draft(Kind.TOPUP, 1_000)], 5).result()
    lost: list[Block] = []
    for seq in range(1, 4):
        previous = lost[-1].hash if lost else GENESIS
        topup = Delta(own, seq, card(2), Kind.TOPUP, 700, 4)
        lost.append(seal(world.HUB_KEY, world.FLEET, [topup], previous))
    mine, rival = ONE.blocks(fares(1, 1), [])[0], ONE.blocks(fares(1, 1, -7), [])[0]
    monkeypatch.setattr(quarantine, "MAX_QUARANTINED_BYTES", 0)
    assert errors(merge(hub, *lost, mine, rival)) == [ForkDetected] * 4
    assert {entry.hash for entry in in_quarantine(hub).result()} == {block.hash for block in lost}
    full = [flag.replica for flag in hub.flags().result() if flag.code is RefusalCode.TOO_LARGE]
    assert full == [ONE.key.replica]


def test_invariant_8_what_follows_a_hubs_cut_off_has_only_so_much_room(
    hub: HubLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has stolen the key signs with it. It is refused as revoked, and so no copy is dropped."""
    key, place = SigningKey(b"f" * 32), TerminalId(b"former hub".ljust(16))
    certificate = issue(world.FLEET_KEY, place, "depot", Role.HUB, key.public_key, world.ANYTHING)
    former = world.Terminal(key, certificate)
    hub.merge([], [certificate]).result()
    body = Revocations({key.replica: 0}).encode()
    hub.put_document(SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)).result()
    monkeypatch.setattr(quarantine, "MAX_QUARANTINED_BYTES", 0)
    assert errors(merge(hub, *former.blocks(fares(1, 1, author=former), []))) == [Revoked]
    assert in_quarantine(hub).result() == []


def test_a_flag_can_be_dismissed_and_comes_back_when_it_recurs(hub: HubLedger) -> None:
    merge(hub, *ONE.blocks(fares(1, 1), []))
    merge(hub, *ONE.blocks(fares(1, 1, -7), []))
    assert hub.dismiss_flag(ONE.key.replica, RefusalCode.FORK_DETECTED).result()
    assert not hub.dismiss_flag(ONE.key.replica, RefusalCode.FORK_DETECTED).result()
    assert hub.flags().result() == []
    merge(hub, *ONE.blocks(fares(1, 1, -8), []))
    assert len(hub.flags().result()) == 1


LIMITED = world.terminal(7, Limits(CERTIFIED, 1_000, 1_000, allowance_minor=1_500))


def credits(*amounts: int) -> list[Block]:
    """Top-ups by the terminal with an allowance, one a block."""
    deltas = [
        Delta(LIMITED.key.replica, seq, card(1), Kind.TOPUP if amount > 0 else Kind.FARE, amount, 1_000)
        for seq, amount in enumerate(amounts, 1)
    ]
    return LIMITED.blocks(deltas, [1] * len(deltas))


@given(amounts=st.lists(st.integers(-1_000, 1_001).filter(bool), min_size=1, max_size=12), data=st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_invariant_10_the_allowance_ends_where_the_model_says(
    amounts: list[int], data: st.DataObject, new_fleet: NewFleet
) -> None:
    """The same blocks are refused, the same way, however they are grouped and whatever was restarted."""
    blocks = credits(*amounts)
    model = Ledger(world.FLEET_KEY.public_key)
    fleet = new_fleet(0)
    try:
        while blocks:
            size = data.draw(st.integers(1, 4))
            part, blocks = [block.raw for block in blocks[:size]], blocks[size:]
            mine = fleet.hub.merge(part, [LIMITED.certificate]).result()
            theirs = model.merge(part, [LIMITED.certificate])
            assert [(one.raw, type(one.error)) for one in mine.refused] == [
                (one.raw, type(one.error)) for one in theirs.refused
            ]
            if data.draw(st.booleans()):
                fleet.hub_database.close()
                fleet.open_hub()
        assert fleet.hub.digest().result() == model.digest()
        assert fleet.hub.books().result() == model.books()
    finally:
        fleet.close()


def test_an_author_that_goes_beyond_its_limits_is_flagged_and_not_kept(hub: HubLedger) -> None:
    """Invariant 10: a broken limit of one delta, and of all of them together."""
    blocks = credits(1_000, 501)
    report = hub.merge([block.raw for block in blocks], [LIMITED.certificate]).result()
    assert errors(report) == [NotPermitted]
    assert len(report.added) == 1
    (flag,) = hub.flags().result()
    assert (flag.code, flag.seq) == (RefusalCode.NOT_PERMITTED, 2)
    assert "1500" in flag.sentence
    hub.dismiss_flag(flag.replica, flag.code).result()
    assert errors(merge(hub, credits(1_001)[0])) == [NotPermitted]
    assert len(hub.flags().result()) == 1
    assert in_quarantine(hub).result() == []
