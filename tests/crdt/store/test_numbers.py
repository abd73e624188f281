"""Card numbers: dense, in the order of meeting, for ever; and short blocks made whole with them."""

from contextlib import closing

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.block import Block, parse
from crdt.cursor import START
from crdt.errors import BadSignature, Malformed, UnknownCardNumber
from crdt.facts import CardId, Delta, Draft, Kind
from crdt.numbering import cards_of, shorten
from crdt.settlement import NO_SERIES
from crdt.store.balances import Met
from crdt.store.hub import HubLedger
from crdt.store.numbers import CardNumbers
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, card
from tests.crdt.store.stores import NewFleet

ONE, OTHER, _ = world.TERMINALS


def numbers(hub: HubLedger) -> dict[CardId, int]:
    """As a full settlement tells them."""
    page = hub.page(NO_SERIES, 0, START).result()
    return {row.card: row.number for row in page.rows}


def rides(cards: list[int], first: int = 1, author: world.Terminal = ONE) -> list[Delta]:
    """One fare each on these cards."""
    return [
        Delta(author.key.replica, seq, card(number), Kind.FARE, -250, 1_000 + seq)
        for seq, number in enumerate(cards, first)
    ]


@given(blocks=world.chains(), data=st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_are_dense_in_order_of_meeting_and_never_change(
    blocks: list[Block], data: st.DataObject, new_fleet: NewFleet
) -> None:
    """Whatever is repeated, listed or restarted in between."""
    expected: dict[CardId, int] = {}
    with closing(new_fleet(0)) as fleet:
        for block in blocks:
            if data.draw(st.booleans()):
                fleet.hub.set_hotlisted(data.draw(world.few_cards), data.draw(st.booleans())).result()
            if data.draw(st.booleans()):
                fleet.hub_database.close()
                fleet.open_hub()
            fleet.hub.merge([block.raw, block.raw], world.CERTIFICATES).result()
            for one in cards_of(block):
                expected.setdefault(one, len(expected) + 1)
            assert {one: number for one, number in numbers(fleet.hub).items() if number} == expected


def test_a_card_that_was_only_listed_has_no_number_until_it_is_met(fleet: Fleet) -> None:
    hub = fleet.hub
    hub.set_hotlisted(card(1), True).result()
    hub.append(card(2), [Draft(Kind.TOPUP, 100)], 5).result()
    assert numbers(hub) == {card(1): 0, card(2): 1}
    hub.append(card(1), [Draft(Kind.TOPUP, 100)], 5).result()
    assert numbers(hub) == {card(1): 2, card(2): 1}


def test_a_short_block_is_the_block_that_was_signed(fleet: Fleet) -> None:
    """Cards from before the hub's start, from a merge since, from its own booking, and one in full."""
    fleet.hub.merge([block.raw for block in ONE.blocks(rides([1, 2, 3]), [])]).result()
    fleet.hub_database.close()
    fleet.open_hub()
    hub = fleet.hub
    hub.append(card(4), [Draft(Kind.TOPUP, 100)], 5).result()
    hub.merge([block.raw for block in OTHER.blocks(rides([5, 6], author=OTHER), [])]).result()
    blocks = ONE.blocks(rides([1, 2, 3]) + rides([6, 2, 4, 5, 99, 1], 4), [3])
    short = shorten(blocks[1], numbers(hub))
    assert short is not None
    assert [block.raw for block in hub.merge([], shorts=[short]).result().added] == [blocks[1].raw]


def test_a_number_nobody_gave_asks_for_the_block_in_full(fleet: Fleet) -> None:
    (block,) = ONE.blocks(rides([1, 2]), [])
    short = shorten(block, {card(1): 1, card(2): 2})
    assert short is not None
    (refused,) = fleet.hub.merge([], shorts=[short]).result().refused
    assert (refused.raw, type(refused.error)) == (short, UnknownCardNumber)
    fleet.hub.merge([block.raw]).result()
    assert fleet.hub.merge([], shorts=[short]).result().known == 1
    (refused,) = fleet.hub.merge([], shorts=[short[:80]]).result().refused
    assert type(refused.error) is Malformed


def test_invariant_8_a_wrong_number_can_only_spoil_the_signature(fleet: Fleet) -> None:
    """Numbers are never believed: what they make is verified like any other block."""
    fleet.hub.merge([block.raw for block in OTHER.blocks(rides([1, 2], author=OTHER), [])]).result()
    (block,) = ONE.blocks(rides([1, 2]), [])
    swapped = shorten(block, {card(1): 2, card(2): 1})
    assert swapped is not None
    report = fleet.hub.merge([], shorts=[swapped]).result()
    assert [type(refused.error) for refused in report.refused] == [BadSignature]
    assert parse(block.raw).hash not in {added.hash for added in report.added}


def test_numbers_that_another_process_gave_are_read_when_they_are_asked_for(fleet: Fleet) -> None:
    """What a process has not learnt by itself comes from the database, without a gap."""
    fleet.hub.merge([block.raw for block in ONE.blocks(rides([1, 2, 3]), [])]).result()
    index = CardNumbers()
    index.learn(Met(3, [card(3)]))
    known = fleet.hub_database.read_and_wait(lambda connection: index.cards(connection, [3, 0, 1, 4, 2]))
    assert known == [card(3), None, card(1), None, card(2)]
    index.learn(Met(4, [CardId(b"4444")]))
    known = fleet.hub_database.read_and_wait(lambda connection: index.cards(connection, [4, 5]))
    assert known == [b"4444", None]
