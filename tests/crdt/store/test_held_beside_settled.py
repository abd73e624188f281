"""What a terminal holds of others gives way to the settlement and the hub's list, and is kept as evidence."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.block import Block
from crdt.cursor import Cursor, beginning
from crdt.documents import SignedDocument
from crdt.errors import ForkDetected
from crdt.facts import Delta, Kind
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.settlement import CardRow, Page, seal_page
from crdt.store import quarantine
from crdt.store.conceding import Conceded
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, card
from tests.crdt.store.recoveries import FARE, suspended


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub and two terminals with high-water marks."""
    fleet = Fleet(tmp_path, 2, marked=True)
    yield fleet
    fleet.close()


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
