"""A terminal keeps the hub's own blocks for it (invariant 4), and nothing else changes by that (3, 6, 8)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.block import Block, parse, seal
from crdt.certificate import AuthorCertificate, Role, issue
from crdt.cursor import Cursor, beginning
from crdt.documents import SignedDocument
from crdt.errors import BadSignature, ChainBroken, NotPermitted, UnknownAuthor
from crdt.facts import Delta, Draft, Kind, TerminalId
from crdt.frames import Want
from crdt.frontier import GENESIS, Frontier, Head
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.settlement import CardRow, seal_page
from crdt.signing import SigningKey
from crdt.store import keepsake
from crdt.store.blocks import NO_HEAD
from crdt.store.keepsake import Keepsake
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, OpenTerminal, card

EVERYTHING = 1 << 24
HUB = world.HUB.replica
HUB_AUTHOR = world.Terminal(world.HUB_KEY, world.HUB)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, 2)
    yield fleet
    fleet.close()


def sell(count: int, start: int = 0) -> list[Block]:
    """The hub's chain of so many top-ups, a block each."""
    deltas = [Delta(HUB, seq, card(seq % 4), Kind.TOPUP, 1000, 5_000) for seq in range(1, count + 1)]
    return HUB_AUTHOR.blocks(deltas, [1] * count)[start:]


def raws(blocks: list[Block]) -> list[bytes]:
    return [block.raw for block in blocks]


def first_seqs(blocks: list[bytes]) -> list[int]:
    return [parse(raw).header.first_seq for raw in blocks]


def settle(terminal: OpenTerminal, heads: Frontier, series: bytes = b"S" * 16) -> None:
    """Install a settlement with these heads."""
    rows = [CardRow(card(1), 0, 0)]
    cursor = Cursor(1, rows[-1].card)
    page = seal_page(world.HUB_KEY, world.FLEET, series, 0, beginning(0), cursor, rows, 1, heads, final=True)
    assert terminal.ledger.install(page)


def knowing(terminal: OpenTerminal, *hubs: AuthorCertificate) -> Keepsake:
    terminal.ledger.keepsake.meet(hubs or (world.HUB,))
    return terminal.ledger.keepsake


def all_kept(terminal: OpenTerminal) -> list[int]:
    """The numbers at which the kept blocks begin, holes and all."""
    found: list[int] = []
    at = 0
    while some := terminal.ledger.keepsake.blocks_after(HUB, at, EVERYTHING):
        found += first_seqs(some)
        at = parse(some[-1]).last_seq
    return found


def test_what_the_hub_books_is_asked_for_and_kept_until_it_is_lost(fleet: Fleet) -> None:
    """A real hub; the terminal says, digests and holds the same before and after, also after a restart."""
    one = fleet.terminals[0]
    for number in range(5):
        fleet.book(card(number), Draft(Kind.TOPUP, 1000))
    one.tap(card(1))
    fleet.heal()
    kept = knowing(one)

    def said() -> tuple[object, ...]:
        ledger = one.ledger
        views = [ledger.view(card(number)) for number in range(5)]
        return views, ledger.held(), ledger.books(), ledger.digest(), ledger.status(), ledger.frontier()

    before = said()
    assert kept.wanted() == Want({HUB: 0})
    lot = fleet.hub.blocks_after(HUB, 0, EVERYTHING).result()
    assert kept.keep(lot[:2]) == 2
    assert kept.wanted() == Want({HUB: 2})
    assert kept.keep(lot[2:]) == 3
    assert kept.wanted() is None
    assert kept.lost() == {}
    assert said() == before
    assert before[3] == fleet.hub.digest().result()
    one.reopen()
    assert said() == before
    assert one.ledger.keepsake.heads() == {HUB: fleet.hub.heads([HUB]).result()[HUB]}
    assert one.ledger.keepsake.blocks_after(HUB, 0, EVERYTHING) == lot


def test_invariant_4_a_hub_put_back_gets_its_own_blocks_back_from_terminals(fleet: Fleet) -> None:
    """Each brings what the hub lacks by then: two bring the same, and it counts once."""
    chain = sell(6)
    for terminal in fleet.terminals:
        settle(terminal, {HUB: chain[-1].head})
        assert knowing(terminal).keep(raws(chain)) == 6
    fleet.hub.merge(raws(chain[:2]), [world.HUB]).result()
    for terminal in fleet.terminals:
        settle(terminal, {HUB: chain[1].head}, b"T" * 16)
        assert terminal.ledger.keepsake.lost() == {HUB: chain[1].head}
    for terminal in fleet.terminals:
        report = fleet.hub.merge(terminal.ledger.keepsake.blocks_after(HUB, 2, EVERYTHING)).result()
        assert not report.refused
    assert fleet.hub.heads([HUB]).result() == {HUB: chain[-1].head}
    assert fleet.hub.totals().result().deltas == 6
    assert fleet.hub.books().result().balance
    settle(fleet.terminals[0], {HUB: chain[-1].head}, b"T" * 16)
    assert fleet.terminals[0].ledger.keepsake.lost() == {}


def test_a_chain_that_begins_after_the_gap_is_not_brought(fleet: Fleet) -> None:
    """Until somebody else has filled the gap: the hub would refuse it, and waits on."""
    one, chain = fleet.terminals[0], sell(6)
    settle(one, {HUB: chain[-1].head})
    kept = knowing(one)
    assert kept.keep(raws(chain[3:])) == 3
    settle(one, {HUB: chain[0].head}, b"T" * 16)
    assert kept.lost() == {}
    settle(one, {HUB: chain[2].head}, b"U" * 16)
    assert kept.lost() == {HUB: chain[2].head}


def test_a_hub_that_has_nothing_of_its_own_left_gets_it_from_the_beginning(fleet: Fleet) -> None:
    """A backup from before the first top-up has no head of the hub at all."""
    one, chain = fleet.terminals[0], sell(2)
    settle(one, {HUB: chain[-1].head})
    kept = knowing(one)
    kept.keep(raws(chain))
    settle(one, {}, b"T" * 16)
    assert kept.lost() == {HUB: Head(0, GENESIS)}


def test_invariant_8_only_a_hubs_own_settled_chain_is_kept(fleet: Fleet) -> None:
    one, chain = fleet.terminals[0], sell(4)
    with pytest.raises(UnknownAuthor):
        one.ledger.keepsake.keep(raws(chain))
    kept = knowing(one)
    assert kept.keep([]) == 0
    assert kept.keep(raws(chain)) == 0, "nothing of it is settled here"
    settle(one, {HUB: chain[2].head})
    assert kept.keep(raws(chain)) == 3, "the hub was quicker than its settlement"
    bad = bytearray(chain[3].raw)
    bad[-1] ^= 1
    settle(one, {HUB: chain[3].head}, b"T" * 16)
    with pytest.raises(BadSignature):
        kept.keep([bytes(bad)])
    other = HUB_AUTHOR.blocks([Delta(HUB, 1, card(1), Kind.TOPUP, 7, 5_000)], [])
    branch = HUB_AUTHOR.blocks(
        [Delta(HUB, seq, card(1), Kind.TOPUP, 7, 5_000) for seq in range(1, 5)], [1, 1, 1, 1]
    )
    for wrong in (raws(other), raws(chain), raws(branch[3:]), raws([chain[3], chain[1]])):
        with pytest.raises(ChainBroken):
            kept.keep(wrong)
    with pytest.raises(NotPermitted):
        one.tap(card(1))
        one.ledger.seal()
        kept.keep(one.ledger.blocks_after(0, 1))
    assert first_seqs(kept.blocks_after(HUB, 0, EVERYTHING)) == [1, 2, 3]


def test_a_chain_beside_the_settled_one_is_not_begun(fleet: Fleet) -> None:
    one, chain = fleet.terminals[0], sell(2)
    settle(one, {HUB: Head(2, b"h" * 32)})
    with pytest.raises(ChainBroken):
        knowing(one).keep(raws(chain))
    assert one.ledger.keepsake.heads() == {}


def test_the_keepsake_is_bounded_and_the_oldest_goes_first(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, chain = fleet.terminals[0], sell(40)
    size = max(len(block.raw) for block in chain)
    monkeypatch.setattr(keepsake, "MAX_KEPT_BYTES", 10 * size)
    monkeypatch.setattr(keepsake, "MAX_STEP_BYTES", 4 * size)
    settle(one, {HUB: chain[-1].head})
    kept = knowing(one)
    at = 0
    while at < 40:
        count = kept.keep(raws(chain[at:]))
        assert 0 < count <= 5
        at += count
        assert sum(map(len, kept.blocks_after(HUB, 0, EVERYTHING))) <= 10 * size
    assert 8 <= len(all_kept(one)) <= 10
    assert all_kept(one)[-1] == 40


def test_who_was_away_for_long_begins_anew_near_the_end(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow link does not carry years. What was kept before stays, and is brought up to the hole."""
    monkeypatch.setattr(keepsake, "REACH", 5)
    one, chain = fleet.terminals[0], sell(20)
    settle(one, {HUB: chain[2].head})
    kept = knowing(one)
    assert kept.keep(raws(chain[:3])) == 3
    settle(one, {HUB: chain[-1].head}, b"T" * 16)
    assert kept.wanted() == Want({HUB: 15})
    assert kept.keep(raws(chain[15:])) == 5
    assert first_seqs(kept.blocks_after(HUB, 1, EVERYTHING)) == [2, 3]
    assert all_kept(one) == [1, 2, 3, 16, 17, 18, 19, 20]
    settle(one, {HUB: chain[0].head}, b"U" * 16)
    assert kept.lost() == {HUB: chain[0].head}
    settle(one, {HUB: chain[2].head}, b"V" * 16)
    assert kept.lost() == {}


def test_what_the_settlement_contradicts_is_known_and_is_no_chain_to_go_on_with(fleet: Fleet) -> None:
    """The hub was put back unnoticed: the settlement has other blocks with these numbers. Whether it ends at
    the end of a block that is kept, before all of them, within one or at the last one's end."""
    one, chain = fleet.terminals[0], sell(3)
    deltas = [Delta(HUB, seq, card(1), Kind.TOPUP, 1000, 5_000) for seq in range(4, 7)]
    pair = seal(world.HUB_KEY, world.FLEET, deltas[:2], chain[-1].hash)
    last = seal(world.HUB_KEY, world.FLEET, deltas[2:], pair.hash)
    settle(one, {HUB: last.head})
    kept = knowing(one)
    assert kept.keep(raws([*chain, pair, last])) == 5
    assert kept.contradicted() == []
    for number, head in enumerate((NO_HEAD, *(block.head for block in (*chain, pair, last)))):
        settle(one, {HUB: head} if head.seq else {}, bytes([number + 1]) * 16)
        assert kept.contradicted() == [], "it is as far as there, and knows nothing else"
        assert kept.lost() == ({HUB: head} if head.seq < 6 else {})
        if head.seq:
            settle(one, {HUB: Head(head.seq, b"h" * 32)}, bytes([number + 11]) * 16)
            assert (kept.contradicted(), kept.lost()) == ([HUB], {})
    settle(one, {HUB: Head(4, pair.hash)}, b"W" * 16)
    assert (kept.contradicted(), kept.lost()) == ([HUB], {})
    settle(one, {HUB: Head(9, b"h" * 32)}, b"X" * 16)
    assert kept.contradicted() == [], "what is beyond all that is kept does not tell"
    assert kept.block_at(HUB, 5) == pair.raw
    kept.forget(raws([chain[2], pair, last]))
    assert (kept.block_at(HUB, 9), kept.heads()) == (chain[1].raw, {HUB: chain[1].head})


def test_every_identity_that_the_hub_had_is_kept(fleet: Fleet) -> None:
    """The chain of which most is missing comes first; what a revoked one wrote is not brought."""
    key = SigningKey(b"N" * 32)
    later = issue(
        world.FLEET_KEY, TerminalId(b"hub".ljust(16)), "depot", Role.HUB, key.public_key, world.ANYTHING
    )
    deltas = [Delta(later.replica, seq, card(1), Kind.TOPUP, 5, 5_000) for seq in (1, 2)]
    one, chain, new = fleet.terminals[0], sell(6), world.Terminal(key, later).blocks(deltas, [1, 1])
    settle(one, {HUB: chain[-1].head, later.replica: new[-1].head})
    kept = knowing(one, world.HUB, later)
    assert kept.wanted() == Want({HUB: 0})
    kept.keep(raws(chain))
    assert kept.wanted() == Want({later.replica: 0})
    kept.keep(raws(new))
    assert kept.wanted() is None
    settle(one, {}, b"T" * 16)
    assert set(kept.lost()) == {HUB, later.replica}
    body = Revocations({later.replica: 0}).encode()
    one.ledger.put_document(SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body))
    assert set(kept.lost()) == {HUB}
    one.become(world.terminal(7))
    assert set(one.ledger.keepsake.lost()) == {HUB}, "paired anew, it is the same keepsake"


def test_a_strangers_certificate_is_not_remembered(fleet: Fleet) -> None:
    one = fleet.terminals[0]
    stranger = issue(
        world.OTHER_FLEET_KEY, TerminalId(b"x" * 16), "x", Role.HUB, world.HUB_KEY.public_key, world.ANYTHING
    )
    one.ledger.keepsake.meet([stranger])
    assert HUB not in one.ledger.authors()
