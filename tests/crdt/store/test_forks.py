"""A restored or copied terminal: noticed, suspended, its facts counted exactly once (invariants 4, 5, 6)."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crdt.block import Block, parse, seal
from crdt.certificate import Limits
from crdt.documents import SignedDocument
from crdt.errors import (
    ChainBroken,
    ForkDetected,
    InputRefused,
    Malformed,
    MisuseError,
    NotPermitted,
    Restored,
    UnknownAuthor,
)
from crdt.facts import CardId, Delta, Draft, Kind, ReplicaId
from crdt.forks import ForkProof
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.settlement import CardRow, Cursor, Page, beginning, seal_page
from crdt.store import quarantine
from crdt.store.concession import Conceded
from crdt.store.inline import InlineDatabase
from crdt.store.marks import Marks
from crdt.store.terminal import TerminalLedger
from tests.crdt import world
from tests.crdt.store.fleet import KEY, Fleet, OpenTerminal, added_up, card, deltas_of

FARE = Draft(Kind.FARE, -250)
EVERYTHING = 1 << 24
NEW = world.terminal(7)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and two terminals with high-water marks."""
    fleet = Fleet(tmp_path, 2, marked=True)
    yield fleet
    fleet.close()


def tap(terminal: OpenTerminal, at_ms: int, number: int | None = None) -> None:
    """A tap that no other is like: its time is its own."""
    which = card(at_ms % 5 if number is None else number)
    terminal.ledger.transact(which, lambda _view: ([FARE], None), at_ms)


def suspended(terminal: OpenTerminal) -> bool:
    """Asked anew each time."""
    return terminal.ledger.suspended


def canonical(fleet: Fleet, replica: ReplicaId) -> list[bytes]:
    return fleet.hub.blocks_after(replica, 0, EVERYTHING).result()


def concede(fleet: Fleet, terminal: OpenTerminal, replica: ReplicaId) -> Conceded:
    return terminal.ledger.concede(replica, canonical(fleet, replica))


def hub_times(fleet: Fleet) -> Counter[int]:
    """When the fares that the hub counts were taken, and how often each counts."""
    times: Counter[int] = Counter()
    for replica in fleet.hub.heads().result():
        for raw in canonical(fleet, replica):
            times.update(fact.at_ms for fact in deltas_of(parse(raw)))
    return times


def deliver(fleet: Fleet, terminal: OpenTerminal) -> None:
    """Seal, and send the hub all chains as far as it takes them."""
    terminal.ledger.seal()
    authors = terminal.ledger.authors()
    heads = fleet.hub.heads().result()
    for replica, head in terminal.ledger.frontier().items():
        before = heads[replica].seq if replica in heads else 0
        if head.seq > before:
            raws = terminal.ledger.blocks_after(before, EVERYTHING, replica)
            assert not fleet.hub.merge(raws, [authors[replica]]).result().refused


def restored(fleet: Fleet, tmp_path: Path) -> OpenTerminal:
    """A terminal that delivered taps 1 to 6, put back to when it had sealed 1 to 2 and tapped 3 and 4."""
    one = fleet.terminals[0]
    tap(one, 1)
    tap(one, 2)
    deliver(fleet, one)
    tap(one, 3)
    tap(one, 4)
    image = one.image(tmp_path / "image")
    tap(one, 5)
    deliver(fleet, one)
    tap(one, 6)
    deliver(fleet, one)
    one.restore(image)
    return one


def test_a_restored_terminal_is_suspended_by_its_mark_and_taps_go_on(fleet: Fleet, tmp_path: Path) -> None:
    """Invariants 1 and 5: no number is sealed twice, and no passenger waits for that to be sorted out."""
    one = restored(fleet, tmp_path)
    assert suspended(one)
    assert one.ledger.status()["suspended"]
    tap(one, 7)
    assert one.ledger.seal() is None
    assert one.ledger.own_head().seq == 2
    assert one.ledger.status()["open"] == 3
    one.reopen()
    assert suspended(one)
    assert one.ledger.status()["open"] == 3


def test_a_restart_is_no_restore(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    for at_ms in range(5):
        tap(one, at_ms)
        one.ledger.seal()
        one.reopen()
        assert not suspended(one)


def test_a_copy_that_sealed_nothing_since_is_noticed_too(fleet: Fleet, tmp_path: Path) -> None:
    """Its open taps may have been sealed, and sent, by the one that is gone."""
    one = fleet.terminals[0]
    tap(one, 1)
    image = one.image(tmp_path / "image")
    one.restore(image)
    assert suspended(one)


def test_it_writes_again_exactly_what_the_hub_lacks(fleet: Fleet, tmp_path: Path) -> None:
    """Issue 3: a new replica id in the same exchange; facts keep card, kind, amount, time and context."""
    one = restored(fleet, tmp_path)
    old = one.ledger.replica
    tap(one, 7)
    tap(one, 8)
    done = concede(fleet, one, old)
    assert done == Conceded(2, ())  # 7 and 8 had the numbers of 5 and 6; 3 and 4 the hub has as they are
    assert suspended(one)
    assert concede(fleet, one, old) == Conceded(0, ())
    tap(one, 9)
    one.become(NEW)
    assert not suspended(one)
    assert one.ledger.status()["open"] == 3
    deliver(fleet, one)
    assert hub_times(fleet) == Counter(range(1, 10))
    assert [fact.seq for raw in canonical(fleet, NEW.key.replica) for fact in deltas_of(parse(raw))] == [
        1,
        2,
        3,
    ]
    fleet.pull(one)
    assert one.ledger.digest() == fleet.hub.digest().result()
    assert one.ledger.held() == (0, 0)
    one.reopen()
    assert not suspended(one)


def test_the_view_is_exact_from_the_restore_to_the_settlement(fleet: Fleet, tmp_path: Path) -> None:
    """Invariant 6: settled + what is held, each fact once; the restored image's own taps count all along."""
    one = restored(fleet, tmp_path)
    old = one.ledger.replica

    def check(*times: int) -> None:
        expected = added_up(
            Delta(old, seq, card(at_ms % 5), Kind.FARE, -250, at_ms) for seq, at_ms in enumerate(times, 1)
        )
        for number in range(5):
            state = expected.get(card(number))
            assert one.ledger.view(card(number)).balance_minor == (state.balance_minor if state else 0)
        assert one.ledger.books().balance

    check(1, 2, 3, 4)
    tap(one, 7)
    check(1, 2, 3, 4, 7)
    with pytest.raises(ForkDetected, match="restored or copied"):
        fleet.pull(one)
    check(1, 2, 3, 4, 7)
    assert list(one.ledger.contested(fleet.next_page(one))) == [old]
    concede(fleet, one, old)
    check(1, 2, 3, 4, 5, 6, 7)
    assert not one.ledger.contested(fleet.next_page(one))
    fleet.pull(one)
    check(1, 2, 3, 4, 5, 6, 7)
    one.reopen()
    check(1, 2, 3, 4, 5, 6, 7)
    one.become(NEW)
    check(1, 2, 3, 4, 5, 6, 7)
    deliver(fleet, one)
    fleet.pull(one)
    check(1, 2, 3, 4, 5, 6, 7)


def cloned(fleet: Fleet, tmp_path: Path) -> tuple[OpenTerminal, list[Block]]:
    """A copied image whose marks were copied too: it seals beside what the hub holds. And those blocks."""
    one = fleet.terminals[0]
    tap(one, 1)
    deliver(fleet, one)
    tap(one, 2)
    image = one.image(tmp_path / "image")
    tap(one, 3)
    deliver(fleet, one)
    one.marked = False
    one.restore(image)
    assert not suspended(one)
    tap(one, 4)
    first = one.ledger.seal()
    tap(one, 5)
    second = one.ledger.seal()
    tap(one, 6)
    assert first is not None
    assert second is not None
    return one, [first, second]


def test_a_fork_is_proven_quarantined_and_nobodys_money_counts_twice_or_drops(
    fleet: Fleet, tmp_path: Path
) -> None:
    one, fork = cloned(fleet, tmp_path)
    old = one.ledger.replica
    done = concede(fleet, one, old)
    assert done == Conceded(2 + 0, tuple(block.hash for block in fork))
    assert concede(fleet, one, old) == Conceded(0, ())
    assert one.ledger.reissued() == [block.hash for block in fork]
    entries = one.ledger.quarantined(9)
    assert [entry.raw for entry in entries] == [block.raw for block in fork]
    assert one.ledger.quarantined(1) == entries[:1]
    assert entries[0].counted is not None
    ForkProof(entries[0].counted, entries[0].raw).verify(world.TERMINALS[0].certificate)
    one.ledger.evidence_delivered([entries[0].hash])
    assert one.ledger.quarantined(9) == entries[1:]
    one.become(NEW)
    deliver(fleet, one)
    assert hub_times(fleet) == Counter([1, 2, 3, 4, 5, 6])
    assert one.ledger.status()["quarantined"] == 2
    fleet.pull(one)
    assert one.ledger.digest() == fleet.hub.digest().result()


def test_a_branch_that_somebody_else_brings_is_not_said_to_be_written_again(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Invariant 4: of a disk that is gone a peer has blocks; the hub, told so, would never count them."""
    one, fork = cloned(fleet, tmp_path)
    old = one.ledger.replica
    concede(fleet, one, old)
    one.become(NEW)
    gone = [Delta(old, seq, card(1), Kind.FARE, -250, 90 + seq) for seq in (1, 2)]
    branch = world.TERMINALS[0].blocks(gone, [1])
    refused = one.ledger.merge([block.raw for block in branch]).refused
    assert [type(each.error) for each in refused] == [ForkDetected] * 2
    for _ in range(2):
        assert set(one.ledger.reissued()) == {block.hash for block in fork}
        one.ledger.evidence_delivered([entry.hash for entry in one.ledger.quarantined(9)])
    assert one.ledger.quarantined(9) == []


def test_an_earlier_identity_is_conceded_without_suspending_the_present_one(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Paired anew before anybody noticed the fork: its facts go into the present identity's open segment."""
    one, fork = cloned(fleet, tmp_path)
    old = one.ledger.replica
    one.ledger.retire()
    one.become(NEW)
    tap(one, 7)
    with pytest.raises(ForkDetected, match=old.hex()):
        fleet.pull(one)
    done = concede(fleet, one, old)
    assert done.reissued == 3
    assert not suspended(one)
    assert set(done.quarantined) > {block.hash for block in fork}
    deliver(fleet, one)
    fleet.pull(one)
    assert hub_times(fleet) == Counter([1, 2, 3, 4, 5, 6, 7])
    assert one.ledger.digest() == fleet.hub.digest().result()


def test_blocks_that_continue_the_hubs_chain_stay_and_are_sent(fleet: Fleet) -> None:
    """Their facts may reach the hub by another path; written again they would count twice."""
    one = fleet.terminals[0]
    tap(one, 1)
    deliver(fleet, one)
    tap(one, 2)
    one.ledger.seal()
    tap(one, 3)
    assert concede(fleet, one, one.ledger.replica) == Conceded(0, ())
    assert suspended(one)
    one.become(NEW)
    deliver(fleet, one)
    assert hub_times(fleet) == Counter([1, 2, 3])


def test_a_part_of_the_hubs_chain_will_do_when_it_begins_where_both_agree(
    fleet: Fleet, tmp_path: Path
) -> None:
    one, fork = cloned(fleet, tmp_path)
    old = one.ledger.replica
    whole = canonical(fleet, old)
    tap(fleet.terminals[1], 9)
    other = fleet.terminals[1].ledger.seal()
    assert other is not None
    before = one.ledger.status(), one.ledger.digest()
    wrong: list[tuple[list[bytes], type[InputRefused]]] = [
        ([whole[1], whole[0]], ChainBroken),
        ([other.raw], UnknownAuthor),
        ([whole[0], other.raw], UnknownAuthor),
        ([b"junk"], Malformed),
    ]
    for raws, error in wrong:
        with pytest.raises(error):
            one.ledger.concede(old, raws)
    with pytest.raises(UnknownAuthor):
        one.ledger.concede(other.header.replica, [other.raw])
    assert (one.ledger.status(), one.ledger.digest()) == before
    done = one.ledger.concede(old, whole[1:])
    assert done.quarantined == tuple(block.hash for block in fork)


def test_what_continues_a_chain_that_has_ended_is_written_again(fleet: Fleet) -> None:
    """Invariant 4: the hub takes no more of it, so nothing of it stays to be sent as what it was."""
    one = fleet.terminals[0]
    old = one.ledger.replica
    tap(one, 1)
    fleet.push(one)
    tap(one, 2)
    beyond = one.ledger.seal()
    assert beyond is not None
    assert one.ledger.concede(old, canonical(fleet, old)).quarantined == ()
    done = one.ledger.concede(old, canonical(fleet, old), ended=True)
    assert (done.reissued, done.quarantined) == (beyond.header.count, (beyond.hash,))
    assert one.ledger.suspended
    one.become(world.terminal(7))
    again = one.ledger.seal()
    assert again is not None
    assert [fact.card for fact in deltas_of(again)] == [fact.card for fact in deltas_of(beyond)]
    fleet.push(one)
    fleet.heal()
    assert one.ledger.digest() == fleet.hub.digest().result()


@pytest.mark.parametrize("shown", [0, 1])
def test_what_is_below_the_cut_off_of_a_chain_that_has_ended_is_not_written_again(
    fleet: Fleet, shown: int
) -> None:
    """Invariant 5: a hub that shows less than it ended the chain with, put back say, takes the rest as it
    is."""
    one = fleet.terminals[0]
    old = one.ledger.replica
    for at_ms in (1, 2, 3):
        tap(one, at_ms)
        one.ledger.seal()
    body = Revocations({old: 2}, frozenset({old})).encode()
    listed = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)
    assert fleet.hub.put_document(listed).result()
    chain = one.ledger.blocks_after(0, EVERYTHING, old)
    assert one.ledger.put_document(listed)
    done = one.ledger.concede(old, chain[:shown], ended=True)
    assert done == Conceded(1, ())
    one.become(NEW)
    deliver(fleet, one)
    assert hub_times(fleet) == Counter([1, 2, 3])
    assert one.ledger.digest() == fleet.hub.digest().result()


def test_blocks_that_begin_after_the_chains_parted_are_not_enough(fleet: Fleet, tmp_path: Path) -> None:
    one, _ = cloned(fleet, tmp_path)
    old = one.ledger.replica
    original = fleet.terminals[0].author
    whole = [parse(raw) for raw in canonical(fleet, old)]
    later = Delta(old, 4, card(1), Kind.FARE, -1, 99)
    following = seal(original.key, world.FLEET, [later], whole[-1].hash)
    with pytest.raises(ChainBroken, match="ask for earlier"):
        one.ledger.concede(old, [following.raw])


def test_ones_own_block_from_a_peer_proves_the_restore(fleet: Fleet, tmp_path: Path) -> None:
    """Without marks, without a hub: whoever hears of its own forgotten block seals nothing more."""
    one, other = fleet.terminals
    tap(one, 1)
    image = one.image(tmp_path / "image")
    block = one.ledger.seal()
    assert block is not None
    assert not other.ledger.merge([block.raw], [one.author.certificate]).refused
    one.marked = False
    one.restore(image)
    forged = block.raw[:-1] + bytes([block.raw[-1] ^ 1])
    assert not isinstance(one.ledger.merge([forged]).refused[0].error, Restored)
    assert not suspended(one)
    report = one.ledger.merge([block.raw])
    assert [type(each.error) for each in report.refused] == [Restored]
    assert suspended(one)
    assert one.ledger.own_head().seq == 0
    assert one.ledger.held() == (1, -250)
    one.reopen()
    assert suspended(one)
    deliver(fleet, other)
    assert concede(fleet, one, one.ledger.replica) == Conceded(0, ())
    one.become(NEW)
    deliver(fleet, one)
    assert hub_times(fleet) == Counter([1])


def settlement(block: Block, position: int, rows: list[CardRow], base: int = 0) -> Page:
    after = beginning(base)
    heads = {block.header.replica: block.head}
    last = Cursor(position, replica=block.header.replica)
    until = Cursor(position, rows[-1].card) if rows else last
    return seal_page(
        world.HUB_KEY, world.FLEET, b"S" * 16, base, after, until, rows, position, heads, final=True
    )


@pytest.mark.parametrize("beside", [False, True])
def test_a_settlement_wins_over_a_held_chain_of_another_terminal(fleet: Fleet, beside: bool) -> None:
    """Invariant 6: in the swap's own transaction its blocks beside the settlement leave the record."""
    one, other = fleet.terminals
    author = one.author
    facts = [Delta(author.key.replica, seq, card(seq), Kind.FARE, -100 * seq, seq) for seq in (1, 2, 3)]
    held = author.blocks(facts, [1, 1, 1])
    counted = author.blocks([facts[0], *(Delta(author.key.replica, 2, card(9), Kind.FARE, -7, 9),)], [1, 1])
    other.ledger.merge([block.raw for block in held], [author.certificate])
    other.write(card(4), [FARE])
    assert other.ledger.held() == (4, -850)
    end = counted[1] if beside else counted[0]
    if not beside:  # the settlement ends where both agree: all beyond goes on counting
        assert other.ledger.install(settlement(end, 1, [CardRow(card(1), -100, 0)]))
        assert other.ledger.held() == (3, -750)
        assert other.ledger.quarantined(9) == []
        return
    rows = [CardRow(card(1), -100, 0), CardRow(card(9), -7, 0)]
    assert other.ledger.install(settlement(end, 1, rows))
    assert other.ledger.held() == (1, -250)
    assert [entry.raw for entry in other.ledger.quarantined(9)] == [held[1].raw, held[2].raw]
    views = [other.ledger.view(card(number)).balance_minor for number in (1, 2, 3, 4, 9)]
    assert views == [-100, 0, 0, -250, -7]
    before = other.ledger.status(), other.ledger.digest()
    other.reopen()
    assert (other.ledger.status(), other.ledger.digest()) == before
    assert other.ledger.frontier()[author.key.replica] == end.head
    report = other.ledger.merge([held[2].raw, held[1].raw])
    assert {type(each.error) for each in report.refused} == {ForkDetected}
    assert other.ledger.held() == (1, -250)


@pytest.mark.parametrize("way", ["conceded", "settled", "revoked"])
def test_what_leaves_the_record_is_kept_however_much_is_in_quarantine(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Invariant 5: the hub decides about its facts, and this may be the only copy."""
    monkeypatch.setattr(quarantine, "MAX_QUARANTINED_BYTES", 0)
    one, other = fleet.terminals
    author = one.author
    facts = [Delta(author.key.replica, 1, card(1), Kind.FARE, -amount, 1) for amount in (1, 2)]
    held, counted = (author.blocks([fact], [])[0] for fact in facts)
    other.ledger.merge([held.raw], [author.certificate])
    if way == "conceded":
        other.ledger.concede(author.key.replica, [counted.raw])
    elif way == "settled":
        assert other.ledger.install(settlement(counted, 1, [CardRow(card(1), -2, 0)]))
    else:
        body = Revocations({author.key.replica: 0}).encode()
        document = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)
        assert other.ledger.put_document(document)
    assert [entry.raw for entry in other.ledger.quarantined(9)] == [held.raw]


def test_a_settlement_that_names_another_block_right_before_the_held_ones_wins(fleet: Fleet) -> None:
    one, other = fleet.terminals
    author = one.author
    facts = [Delta(author.key.replica, seq, card(seq), Kind.FARE, -100 * seq, seq) for seq in (1, 2)]
    held = author.blocks(facts, [1, 1])
    other.ledger.install(settlement(held[0], 1, [CardRow(card(1), -100, 0)]))
    other.ledger.merge([held[1].raw], [author.certificate])
    assert other.ledger.held() == (1, -200)
    changed = Delta(author.key.replica, 1, card(8), Kind.FARE, -5, 1)
    counted = author.blocks([changed], [])[0]
    rows = [CardRow(card(1), 0, 0), CardRow(card(8), -5, 0)]
    assert other.ledger.install(settlement(counted, 2, rows, base=1))
    assert other.ledger.held() == (0, 0)
    assert other.ledger.view(card(2)).balance_minor == 0
    assert len(other.ledger.quarantined(9)) == 1


def test_a_foreign_fork_is_conceded_without_writing_anything_again(fleet: Fleet) -> None:
    """Whose it is writes it again; here it is evidence."""
    one, other = fleet.terminals
    author = one.author
    facts = [Delta(author.key.replica, 1, card(1), Kind.FARE, -amount, 1) for amount in (1, 2)]
    mine, hubs = (author.blocks([fact], [])[0] for fact in facts)
    other.ledger.merge([mine.raw], [author.certificate])
    assert isinstance(other.ledger.merge([hubs.raw]).refused[0].error, ForkDetected)
    assert other.ledger.concede(author.key.replica, [hubs.raw]) == Conceded(0, (mine.hash,))
    assert not suspended(other)
    assert other.ledger.view(card(1)).balance_minor == -2
    assert [entry.raw for entry in other.ledger.quarantined(9)] == [mine.raw]
    assert other.ledger.reissued() == []


def test_taps_that_are_not_sealed_keep_an_identity_that_could_seal_them(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    tap(one, 1)
    with pytest.raises(MisuseError, match="seal the open taps"):
        one.become(NEW)
    one.ledger.suspend()
    assert one.ledger.seal() is None
    one.become(NEW)
    assert not suspended(one)


def test_invariant_10_a_new_identity_takes_over_only_what_it_may_write(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    one.write(card(1), [Draft(Kind.OPENING, 500), FARE])
    one.ledger.suspend()
    old = one.author
    modest = world.terminal(8, Limits(frozenset({Kind.FARE}), 0, 300, 0))
    with pytest.raises(NotPermitted, match="does not allow a OPENING of 500"):
        one.become(modest)
    one.author = old
    one.reopen()
    assert suspended(one)
    assert one.ledger.status()["open"] == 2


def test_invariant_10_an_allowance_that_does_not_suffice_is_said_and_loses_nothing(fleet: Fleet) -> None:
    """What cannot be sealed stays in the open segment, and the next identity's allowance can seal it."""
    one = fleet.terminals[0]
    for number in range(3):
        one.write(card(number), [Draft(Kind.OPENING, 500)])
    one.ledger.suspend()
    one.become(world.terminal(8, Limits(frozenset(Kind), 500, 500, 1_200)))
    assert one.ledger.credit_left() == -300
    assert one.ledger.status()["credit_left"] == -300
    with pytest.raises(NotPermitted, match="may give 1200 minor units of credit in all"):
        one.ledger.seal()
    with pytest.raises(NotPermitted):
        one.write(card(9), [Draft(Kind.OPENING, 1)])
    tap(one, 5)
    one.ledger.retire()
    assert suspended(one)
    one.become(NEW)
    deliver(fleet, one)
    assert one.ledger.status()["open"] == 0
    assert fleet.hub.books().result().deltas_minor == 1_250


def test_invariant_10_a_tap_may_not_give_more_credit_than_is_left(tmp_path: Path) -> None:
    author = world.terminal(8, Limits(frozenset(Kind), 500, 500, 1_200))
    terminal = OpenTerminal(author, tmp_path / "terminal.db")
    terminal.write(card(1), [Draft(Kind.OPENING, 500), FARE])
    terminal.ledger.seal()
    terminal.write(card(2), [Draft(Kind.OPENING, 500)])
    assert terminal.ledger.credit_left() == 200
    with pytest.raises(NotPermitted, match="and this would make it 1500"):
        terminal.write(card(3), [Draft(Kind.OPENING, 500)])
    terminal.reopen()
    assert terminal.ledger.credit_left() == 200
    terminal.write(card(3), [Draft(Kind.OPENING, 200)])
    assert terminal.ledger.seal() is not None
    terminal.close()


class PowerCut(BaseException):
    """The power goes."""


class Board:
    """A terminal's board: its database and marks outlive power cuts, its programs do not."""

    def __init__(self) -> None:
        self.cuts: list[int] = []  # at which of the switch's moments the power goes
        self.moments = 0
        self.kept = b""
        self.identity = world.TERMINALS[0]
        self.database = InlineDatabase.open(None, KEY, cut=self.moment)

    def moment(self) -> None:
        self.moments += 1
        if self.moments in self.cuts:
            raise PowerCut

    def put(self, data: bytes) -> None:
        self.moment()
        self.kept = data
        self.moment()

    def start(self) -> TerminalLedger:
        """The program starts: with the identity that is stored."""
        stored = self.database.get_secret("identity")
        if stored is not None:
            self.identity = NEW
        return self._ledger({})

    def take_over(self) -> TerminalLedger:
        ledger = self._ledger({"identity": NEW.key.replica})
        self.identity = NEW
        return ledger

    def _ledger(self, secrets: dict[str, bytes]) -> TerminalLedger:
        author = NEW if secrets else self.identity
        marks = Marks(self.kept, self.put, lambda length: self.moments.to_bytes(length, "big"))
        public_key = world.FLEET_KEY.public_key
        return TerminalLedger(self.database, public_key, author.key, author.certificate, marks, secrets)

    def power_on(self) -> None:
        self.database = self.database.after_power_cut(cut=self.moment)


def _branch(times: list[int], sizes: list[int]) -> list[Block]:
    author = world.TERMINALS[0]
    facts = [
        Delta(author.key.replica, seq, card(1), Kind.FARE, -250, at_ms) for seq, at_ms in enumerate(times, 1)
    ]
    return author.blocks(facts, sizes)


def _recover(board: Board, hub: list[Block], then: Callable[[str], None]) -> TerminalLedger:
    """What a sync run does after the hub said RESTORED; `then` is told of each step that is done."""
    ledger = board.start()
    if board.identity is not NEW:
        ledger.concede(world.TERMINALS[0].key.replica, [block.raw for block in hub])
        then("conceded")
        ledger = board.take_over()
        then("taken over")
    ledger.seal()
    return ledger


def test_invariants_4_and_5_a_power_cut_at_any_moment_of_a_recovery_changes_nothing_in_the_end() -> None:
    """Before and after every commit and every write of the marks; the recovery is then begun again."""
    hub = _branch([1, 2, 3, 4], [2, 2])

    def prepared() -> Board:
        board = Board()
        ledger = board.start()
        for at_ms in (1, 2):
            ledger.transact(card(1), lambda _view: ([FARE], None), at_ms)
        ledger.seal()
        for at_ms in (3, 14, 15):
            ledger.transact(card(1), lambda _view: ([FARE], None), at_ms)
        ledger.seal()
        ledger.transact(card(1), lambda _view: ([FARE], None), 16)
        board.moments = 0
        return board

    def outcome(ledger: TerminalLedger) -> tuple[object, ...]:
        raws = [
            raw for replica in sorted(ledger.frontier()) for raw in ledger.blocks_after(0, 1 << 20, replica)
        ]
        times = sorted(fact.at_ms for raw in raws for fact in deltas_of(parse(raw)))
        return ledger.view(card(1)), ledger.held(), ledger.suspended, times, ledger.status()["quarantined"]

    board = prepared()
    expected = outcome(_recover(board, hub, lambda _step: None))
    assert expected[1:] == ((7, -1750), False, [1, 2, 3, 4, 14, 15, 16], 1)
    moments = board.moments
    assert moments > 12
    interrupted = set()
    for cut in range(1, moments + 1):
        board = prepared()
        board.cuts = [cut]
        steps: list[str] = ["begun"]
        with pytest.raises(PowerCut):
            _recover(board, hub, steps.append)
        interrupted.add(steps[-1])
        board.power_on()
        ledger = board.start()
        assert ledger.view(card(1)).balance_minor in (-1500, -1750)  # with the hub's fact, or before it
        assert outcome(_recover(board, hub, lambda _step: None)) == expected, f"cut at {cut}"
    assert interrupted == {"begun", "conceded", "taken over"}


def test_a_card_view_never_loses_a_tap_over_a_recovery() -> None:
    """The passback rule knows the facts written again by their own times."""
    board = Board()
    ledger = board.start()
    ledger.transact(CardId(card(1)), lambda _view: ([FARE], None), 50)
    ledger.seal()
    ledger.concede(world.TERMINALS[0].key.replica, [block.raw for block in _branch([7], [])])
    ledger = board.take_over()
    assert ledger.view(card(1)).last_fare_at_ms == 50
    assert ledger.last_at_ms() == 50
