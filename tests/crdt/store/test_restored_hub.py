"""A hub restored from an old backup: noticed by its marks, gets everything back, and says what it waits for.

Invariants 4 (nothing acknowledged is lost) and 5 (no replica and number name two facts).
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.block import Block, seal
from crdt.certificate import Role, issue
from crdt.cursor import START
from crdt.documents import SignedDocument
from crdt.errors import RefusalCode, Restored, StoreFailed
from crdt.facts import Delta, Draft, Kind, TerminalId
from crdt.frontier import GENESIS, Head
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.settlement import SERIES_BYTES
from crdt.signing import SigningKey
from crdt.store import markkeeper
from crdt.store.backup import back_up
from crdt.store.database import Database
from crdt.store.expectations import HEARD_EVERY_MS, Expected, read
from crdt.store.hub import HubLedger
from crdt.store.markkeeper import InlineKeeper, MarkKeeper
from crdt.store.marks import Marks
from crdt.store.standing import HubStanding
from tests.crdt import world
from tests.crdt.store.fleet import KEY, card
from tests.crdt.store.quarantined import in_quarantine

ONE, OTHER, _ = world.TERMINALS
TOPUP = Draft(Kind.TOPUP, 1000)
NEW_KEY = SigningKey(b"N" * 32)
NEW_HUB = issue(
    world.FLEET_KEY, TerminalId(b"hub".ljust(16)), "depot", Role.HUB, NEW_KEY.public_key, world.ANYTHING
)

MARKS = "this hub's own marks"  # who names what is missing, as people read it


class Depot:
    """A hub whose database can be put back from a backup; its marks stay."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.entropy = iter(range(1, 1000))
        self.open()

    def open(self, key: SigningKey = world.HUB_KEY, certificate: object = world.HUB) -> None:
        """Start the hub."""
        self.database = Database.open(self.directory / "hub.db", KEY, readers=2)
        self.start(key, certificate)

    def start(self, key: SigningKey = world.HUB_KEY, certificate: object = world.HUB) -> None:
        """Make the ledger on the open database."""
        marks = Marks.open(self.directory / "marks", self._random)
        self.hub = HubLedger(
            self.database,
            world.FLEET_KEY.public_key,
            key,
            certificate,  # type: ignore[arg-type]
            entropy=self._random,
            now_ms=lambda: 77,
            marks=marks,
        )

    def is_restored(self) -> bool:
        """Whether the hub found its database put back."""
        return self.hub.restored

    def stop(self) -> None:
        """Stop the hub."""
        self.hub.close()
        self.database.close()

    def back_up(self, *others: str) -> None:
        """Copy the database, and nothing else but these files."""
        self.stop()
        shutil.copy(self.directory / "hub.db", self.directory / "backup")
        for other in others:
            shutil.copy(self.directory / other, self.directory / f"{other}.backup")
        self.open()

    def restore(self, *others: str) -> None:
        """Put the copy back, and those of these files."""
        self.stop()
        for other in others:
            shutil.copy(self.directory / f"{other}.backup", self.directory / other)
        for left in self.directory.glob("hub.db-*"):
            left.unlink()
        shutil.copy(self.directory / "backup", self.directory / "hub.db")
        self.open()

    def _random(self, length: int) -> bytes:
        return next(self.entropy).to_bytes(length, "big")


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    """A new hub that knows the terminals."""
    depot = Depot(tmp_path)
    depot.hub.merge([], world.CERTIFICATES).result()
    yield depot
    depot.stop()


def rides(count: int, sizes: list[int], author: world.Terminal = ONE, amount: int = -250) -> list[Block]:
    """A chain of fares, at a time of the author's own."""
    at_ms = 1_000 + author.certificate.terminal[-1]
    deltas = [
        Delta(author.key.replica, seq, card(1), Kind.FARE, amount, at_ms) for seq in range(1, count + 1)
    ]
    return author.blocks(deltas, sizes)


def raws(blocks: list[Block]) -> list[bytes]:
    """The blocks' bytes."""
    return [block.raw for block in blocks]


def standing_of(depot: Depot, author: world.Terminal, head: Head | None) -> HubStanding:
    """What the hub thinks of an author that says that its chain ends there."""
    replica = author.key.replica
    return depot.hub.arrival(replica, {} if head is None else {replica: head}).result()[0]


def test_invariant_5_a_restored_hub_does_not_number_facts_of_its_own_again(depot: Depot) -> None:
    """Its own lost numbers are never rewritten: it books nothing until it has another identity."""
    depot.hub.append(card(1), [TOPUP], 5).result()
    depot.back_up()
    depot.hub.append(card(1), [TOPUP], 5).result()
    lost = depot.hub.blocks_after(depot.hub.replica, 1, 1).result()
    depot.restore()
    assert depot.is_restored()
    with pytest.raises(Restored):
        depot.hub.append(card(1), [TOPUP], 5).result()
    depot.hub.close()
    depot.start()
    assert depot.is_restored(), "the old identity stays retired at every start"
    depot.hub.close()
    depot.start(NEW_KEY, NEW_HUB)
    assert not depot.is_restored()
    assert depot.hub.append(card(1), [TOPUP], 5).result().head.seq == 1
    assert depot.hub.balance(card(1)).result() == 2000
    (waits,) = depot.hub.waiting().result()
    assert (waits.replica, waits.held_seq, waits.expected_seq) == (world.HUB.replica, 1, 2)
    assert not depot.hub.merge(lost).result().refused
    assert depot.hub.balance(card(1)).result() == 3000
    assert depot.hub.waiting().result() == []


@pytest.mark.parametrize("again", [0, 1, 3], ids=["booked nothing", "as many", "more"])
@pytest.mark.parametrize("told", [0, 1], ids=["of the first", "of the second alone"])
def test_invariant_5_a_hub_put_back_with_its_marks_is_told_by_a_block_of_its_own(
    depot: Depot, again: int, told: int
) -> None:
    """The whole machine was put back. The block continues the chain as it is, lies beyond it or beside it.

    The identity ends with it, for good, and what was acknowledged counts once when all of it has come.
    """
    depot.back_up("marks")
    for number in (1, 2):
        depot.hub.append(card(number), [TOPUP], 5).result()
    lost = depot.hub.blocks_after(depot.hub.replica, 0, 1 << 20).result()
    series = depot.hub.page(bytes(SERIES_BYTES), 0, START, 1).result().series
    depot.restore("marks")
    for number in range(again):
        depot.hub.append(card(3), [TOPUP], 6 + number).result()
    assert not depot.is_restored(), "nothing can tell yet"
    depot.hub.merge(lost[told:]).result()
    for _ in range(2):
        assert depot.is_restored()
        with pytest.raises(Restored):
            depot.hub.append(card(4), [TOPUP], 9).result()
        with pytest.raises(Restored):
            depot.hub.adopt([b"?" * 32]).result()
        depot.hub.close()
        depot.start()
    depot.hub.close()
    depot.start(NEW_KEY, NEW_HUB)
    assert not depot.is_restored()
    assert depot.hub.page(bytes(SERIES_BYTES), 0, START, 1).result().series != series
    if told and not again:
        (waits,) = depot.hub.waiting().result()
        assert (waits.replica, waits.held_seq, waits.expected_seq) == (world.HUB.replica, 0, 2)
    depot.hub.merge(lost).result()
    assert depot.hub.waiting().result() == []
    depot.hub.adopt([entry.hash for entry in in_quarantine(depot.hub).result()]).result()
    balances = [depot.hub.balance(card(number)).result() for number in (1, 2, 3)]
    assert balances == [1000, 1000, again * 1000]
    assert depot.hub.append(card(4), [TOPUP], 9).result().state.balance_minor == 1000
    assert depot.hub.books().result().balance


def test_invariant_8_what_is_not_signed_by_the_hub_ends_no_identity(depot: Depot) -> None:
    """Neither a head that somebody makes up, nor a forged block, nor one of an earlier identity."""
    chain = depot.hub.append(card(1), [TOPUP], 5).result().head
    own, beyond = depot.hub.replica, Head(chain.seq + 9, b"?" * 32)
    depot.hub.expect({own: beyond}, "bus 1", 50, by=ONE.key.replica).result()
    depot.hub.claim({own: beyond}, ONE.key.replica, "bus 1", 50).result()
    lost = Delta(own, chain.seq + 1, card(2), TOPUP.kind, TOPUP.amount_minor, 5)
    signed = seal(world.HUB_KEY, world.FLEET, [lost], chain.hash).raw
    forged = signed[:-1] + bytes([signed[-1] ^ 1])
    (refusal,) = depot.hub.merge([forged]).result().refused
    assert refusal.error.code is RefusalCode.BAD_SIGNATURE
    assert not depot.is_restored()
    depot.hub.close()
    depot.start(NEW_KEY, NEW_HUB)
    depot.hub.merge([signed]).result()
    assert not depot.is_restored(), "it goes on under another identity by now"
    assert depot.hub.append(card(2), [TOPUP], 6).result().head.seq == 1


def test_a_backup_put_back_is_noticed_though_nothing_was_booked_since(depot: Depot) -> None:
    """The nonce of the start tells; what was in the backup may have gone on elsewhere."""
    depot.hub.append(card(1), [TOPUP], 5).result()
    depot.back_up()
    depot.restore()
    assert depot.is_restored()


def test_restarts_and_power_cuts_are_no_restore(depot: Depot) -> None:
    for _ in range(3):
        depot.hub.append(card(1), [TOPUP], 5).result()
        depot.stop()
        depot.open()
        assert not depot.is_restored()
    depot.stop()
    marks = Marks.open(depot.directory / "marks", lambda length: b"\7" * length)
    marks.save()  # and then the power was cut, before the database had the new nonce
    depot.open()
    assert not depot.is_restored()


def test_a_lost_marks_file_counts_as_a_restore(depot: Depot) -> None:
    """New hardware with a backup on it has no marks: better one identity too many."""
    depot.hub.append(card(1), [TOPUP], 5).result()
    depot.stop()
    (depot.directory / "marks").unlink()
    depot.open()
    assert depot.is_restored()


def test_invariant_4_a_restored_hub_says_what_it_waits_for_and_gets_it_back(depot: Depot) -> None:
    chain, theirs = rides(6, [2, 2]), rides(3, [1, 1], OTHER)
    depot.hub.merge(raws(chain[:1] + theirs[:1])).result()
    depot.back_up()
    depot.hub.merge(raws(chain + theirs)).result()
    digest, books = depot.hub.digest().result(), depot.hub.books().result()
    depot.restore()
    found = {
        one.replica: (one.held_seq, one.expected_seq, one.source) for one in depot.hub.waiting().result()
    }
    assert found == {ONE.key.replica: (2, 6, MARKS), OTHER.key.replica: (1, 3, MARKS)}
    standing = standing_of(depot, ONE, chain[-1].head)
    assert standing == HubStanding(restored=False, ours=chain[-1].head)
    depot.hub.merge(raws(chain[1:] + theirs[1:])).result()
    assert depot.hub.waiting().result() == []
    assert (depot.hub.digest().result(), depot.hub.books().result()) == (digest, books)


def test_invariant_4_it_waits_for_a_terminal_too_that_it_had_heard_of_before(depot: Depot) -> None:
    """Every terminal has spoken once. What an operator gave up is not waited for again at every start."""
    chain = rides(6, [2, 2])
    depot.hub.merge(raws(chain[:1])).result()
    depot.hub.expect({ONE.key.replica: chain[0].head}, "bus 1", 50, by=ONE.key.replica).result()
    depot.back_up()
    depot.hub.merge(raws(chain)).result()
    depot.restore()
    (waits,) = depot.hub.waiting().result()
    assert (waits.held_seq, waits.expected_seq, waits.source) == (2, 6, MARKS)
    assert depot.hub.give_up(ONE.key.replica).result()
    depot.stop()
    depot.open()
    assert depot.hub.waiting().result() == []


def test_a_backup_made_and_put_back_between_two_starts_is_noticed_by_what_others_wrote(depot: Depot) -> None:
    """The backup has the nonce of this very run. It counts once: a new identity is enough."""
    chain = rides(6, [2, 2])
    depot.hub.merge(raws(chain[:1])).result()
    back_up(depot.directory / "hub.db", KEY, depot.directory / "backup")
    depot.hub.merge(raws(chain)).result()
    depot.restore()
    assert depot.is_restored()
    depot.hub.close()
    for _ in range(2):
        depot.start(NEW_KEY, NEW_HUB)
        assert not depot.is_restored()
        depot.hub.close()
    depot.start(NEW_KEY, NEW_HUB)


def test_what_a_revocation_takes_out_is_no_restore(depot: Depot) -> None:
    """Marks never go back, and the record does, up to the cut-off."""
    chain = rides(6, [2, 2])
    depot.hub.merge(raws(chain)).result()
    body = Revocations({ONE.key.replica: chain[0].last_seq}).encode()
    listed = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)
    assert depot.hub.put_document(listed).result()
    depot.stop()
    depot.open()
    assert not depot.is_restored()
    assert depot.hub.waiting().result() == []


def test_an_own_booking_is_marked_before_it_is_acknowledged(depot: Depot) -> None:
    """Whatever happens to the database after the answer, the number is never given again."""
    head = depot.hub.append(card(1), [TOPUP], 5, request="form").result().head
    on_disk = Marks.open(depot.directory / "marks")
    assert on_disk.heads[depot.hub.replica] == head
    assert depot.hub.append(card(1), [TOPUP], 5, request="form").result().repeated


def test_a_booking_that_cannot_be_marked_is_not_acknowledged(
    depot: Depot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in the ledger, and asked for again it is found there, marked, and booked once."""

    def full(_marks: Marks) -> None:
        raise StoreFailed("The disk is full.")

    with monkeypatch.context() as broken:
        broken.setattr(Marks, "save", full)
        with pytest.raises(StoreFailed):
            depot.hub.append(card(1), [TOPUP], 5, request="form").result()
    booking = depot.hub.append(card(1), [TOPUP], 5, request="form").result()
    assert booking.repeated
    assert booking.state.balance_minor == 1000
    assert Marks.open(depot.directory / "marks").heads[depot.hub.replica] == booking.head
    assert "The disk is full." in caplog.text


def test_others_marks_are_written_by_themselves_and_when_the_ledger_closes(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = rides(1, [])
    depot.hub.merge([block.raw]).result()
    depot.hub.close()
    assert Marks.open(depot.directory / "marks").heads[ONE.key.replica] == block.head
    depot.start()
    monkeypatch.setattr(markkeeper, "INTERVAL_S", 0.0)
    saved: list[None] = []
    marks = Marks(b"", lambda _data: saved.append(None), lambda length: bytes(length))
    keeper = MarkKeeper(marks)
    keeper.note({ONE.key.replica: block.head})
    keeper.secure({}).result()
    keeper.close()
    keeper.close()
    assert saved
    assert isinstance(keeper.secure({}).exception(), StoreFailed)


def test_marks_without_a_thread_are_written_when_told(tmp_path: Path) -> None:
    """For a simulation: nothing happens by itself."""
    marks = Marks.open(tmp_path / "marks")
    keeper = InlineKeeper(marks)
    keeper.note({ONE.key.replica: Head(3, b"h" * 32)})
    assert not (tmp_path / "marks").exists()
    keeper.tick()
    assert Marks.open(tmp_path / "marks").heads == {ONE.key.replica: Head(3, b"h" * 32)}
    assert keeper.secure({ONE.key.replica: Head(4, b"h" * 32)}).exception() is None
    assert Marks.open(tmp_path / "marks").heads[ONE.key.replica].seq == 4
    keeper.close()


def test_invariant_5_an_author_behind_or_beside_what_the_hub_has_is_restored(depot: Depot) -> None:
    chain = rides(6, [2, 2])
    beside = rides(4, [2, 2], amount=-7)
    depot.hub.merge(raws(chain[:2])).result()
    ours = chain[1].head

    def judged(head: Head | None) -> HubStanding:
        return standing_of(depot, ONE, head)

    assert judged(ours) == HubStanding(restored=False, ours=ours)
    assert judged(chain[2].head) == HubStanding(restored=False, ours=ours)
    for head in (None, chain[0].head, beside[0].head, beside[1].head):
        assert judged(head) == HubStanding(restored=True, ours=ours)
    unknown = standing_of(depot, OTHER, None)
    assert unknown == HubStanding(restored=False, ours=Head(0, GENESIS))


def test_an_author_ahead_on_a_branch_that_does_not_count_is_restored(depot: Depot) -> None:
    """It wrote more than the hub has: only its blocks show that it forked, and then its head does."""
    chain, branch = rides(2, []), rides(6, [2, 4], amount=-7)
    depot.hub.merge(raws(chain)).result()
    assert not standing_of(depot, ONE, branch[1].head).restored
    depot.hub.merge(raws(branch)).result()
    assert standing_of(depot, ONE, branch[1].head).restored


def test_what_somebody_names_is_waited_for_until_it_comes_or_is_given_up(depot: Depot) -> None:
    """A peer's HELLO or HEADS names chains; only enrolled authors count, and only what is further."""
    chain = rides(6, [2, 2])
    stranger = world.terminal(9)
    named = {ONE.key.replica: chain[1].head, stranger.key.replica: Head(5, b"h" * 32)}
    depot.hub.expect(named, "HELLO of bus 2, the rear door of the second wagon", 100).result()
    depot.hub.expect({ONE.key.replica: chain[0].head}, "an older word", 200).result()
    (waits,) = depot.hub.waiting().result()
    assert (waits.held_seq, waits.expected_seq, waits.since_ms, waits.source) == (
        0,
        4,
        100,
        "HELLO of bus 2, the rear door of the second wagon",
    )
    depot.stop()
    depot.open()
    assert depot.hub.waiting().result() == [waits]
    depot.hub.merge(raws(chain[:1])).result()
    assert depot.hub.waiting().result()[0].held_seq == 2
    assert depot.hub.give_up(ONE.key.replica).result()
    assert not depot.hub.give_up(ONE.key.replica).result()
    assert depot.hub.waiting().result() == []
    depot.hub.expect({ONE.key.replica: chain[2].head}, "HELLO of bus 3", 300).result()
    assert depot.hub.waiting().result()[0].expected_seq == 6


def test_that_an_author_speaks_is_written_down_seldom_and_of_nobody_else(depot: Depot) -> None:
    """Re-paired, it is another author: what it says is no word of who it was before."""
    again = SigningKey(b"A" * 32)
    certificate = issue(
        world.FLEET_KEY, ONE.certificate.terminal, "bus 1", Role.TERMINAL, again.public_key, world.ANYTHING
    )
    depot.hub.merge([], [certificate]).result()

    def heard() -> dict[bytes, int]:
        expected = depot.database.read_and_wait(read)
        return {replica: one.heard_ms for replica, one in expected.items()}

    depot.hub.expect({}, "HELLO", 1_000_000, by=again.replica).result()
    assert heard() == {again.replica: 1_000_000}
    depot.hub.expect({}, "HELLO", 1_000_000 + HEARD_EVERY_MS - 1, by=again.replica).result()
    assert heard() == {again.replica: 1_000_000}
    depot.hub.expect({}, "HELLO", 1_000_000 + HEARD_EVERY_MS, by=again.replica).result()
    assert heard() == {again.replica: 1_000_000 + HEARD_EVERY_MS}
    assert Expected(3, 1, "x", 5).joined(Expected(2, 9, "y", 9)) == Expected(3, 1, "x", 9)


@pytest.mark.parametrize("pages", [1, 2])
def test_invariant_6_a_load_that_was_begun_at_a_hub_begins_anew_at_its_restored_one(
    depot: Depot, pages: int
) -> None:
    """In the load a card lay after the cursor, because it had changed; in the backup it lies before it. With
    one page the cursor is in the inventory, with two behind it."""
    depot.hub.set_hotlisted(card(1), True).result()
    depot.hub.set_hotlisted(card(2), True).result()
    depot.back_up()
    if pages == 1:
        depot.hub.append(card(1), [TOPUP], 5).result()
    page = depot.hub.page(bytes(SERIES_BYTES), 0, START, 1).result()
    assert [row.card for row in page.rows] == [card(1)]
    if pages == 2:
        depot.hub.append(card(1), [TOPUP], 5).result()
        page = depot.hub.page(page.series, 0, page.until, 1).result()
        assert ([row.card for row in page.rows], page.ends_inventory) == ([card(2)], True)
    depot.restore()
    following = depot.hub.page(page.series, page.base, page.until, 9).result()
    assert following.restarts
    assert [row.card for row in following.rows] == [card(1), card(2)]
