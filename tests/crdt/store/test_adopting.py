"""A fork is resolved without losing or doubling anybody's money (invariants 3 and 5)."""

from contextlib import closing
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.block import parse, seal
from crdt.certificate import Limits, Role, issue
from crdt.documents import SignedDocument
from crdt.errors import MisuseError, NotPermitted
from crdt.facts import Kind
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from crdt.store import copies
from crdt.store.adopting import Adopter
from crdt.store.blocks import authors_of
from crdt.store.hub import Change
from crdt.store.resolutions import ADOPTED, OPEN, REISSUED, UNDONE
from tests.crdt import world
from tests.crdt.store.branches import (
    COMMON,
    MINE,
    ONE,
    OTHER,
    THEIRS,
    as_of,
    facts,
    give,
    renewed,
    resolved,
    settled,
)
from tests.crdt.store.fleet import Fleet, added_up, card, deltas_of
from tests.crdt.store.quarantined import in_quarantine
from tests.crdt.store.stores import NewFleet


def test_what_a_dead_terminals_branch_says_is_booked_once_as_it_was(fleet: Fleet) -> None:
    """Facts from before the copy are in both branches, in blocks that differ: they count once."""
    hub = fleet.hub
    give(hub, *ONE.blocks(COMMON + MINE, [1]))
    branch = ONE.blocks(COMMON + THEIRS, [4])
    give(hub, *branch)
    heard: list[Change] = []
    hub.on_commit(heard.append)
    hashes = [block.hash for block in branch]
    assert hub.adopt(hashes).result() == 3
    assert any(ONE.key.replica in change.suspects for change in heard)
    assert hub.balance(card(1)).result() == 250 - 70
    assert hub.balance(card(2)).result() == -200
    assert hub.balance(card(3)).result() == 500
    assert hub.books().result().balance
    raws = hub.blocks_after(hub.replica, 0, 1 << 20).result()
    own = [delta for raw in raws for delta in deltas_of(parse(raw))]
    assert [(one.card, one.kind, one.amount_minor, one.at_ms, one.context) for one in own] == [
        (one.card, one.kind, one.amount_minor, one.at_ms, one.context) for one in THEIRS
    ]
    assert hub.adopt(hashes).result() == 0
    assert {entry.resolution for entry in in_quarantine(hub).result()} == {ADOPTED}
    assert hub.balance(card(2)).result() == -200


def test_what_several_branches_share_is_booked_once(fleet: Fleet) -> None:
    """An image restored twice: both copies say the same of number 3."""
    give(fleet.hub, *ONE.blocks(COMMON, []))
    shared = facts((1, Kind.FARE, -70), first=3)
    copies = [
        seal(ONE.key, world.FLEET, COMMON[1:] + shared + facts((2, Kind.FARE, -amount), first=4), b"p" * 32)
        for amount in (1, 2)
    ]
    give(fleet.hub, *copies)
    assert fleet.hub.adopt([copies[0].hash]).result() == 2
    assert fleet.hub.adopt([copies[1].hash]).result() == 1
    assert fleet.hub.balance(card(1)).result() == 250 - 70
    assert fleet.hub.balance(card(2)).result() == -3


@pytest.mark.parametrize("said_first", [True, False])
def test_what_the_terminal_has_written_again_is_not_adopted(fleet: Fleet, said_first: bool) -> None:
    """Whether it says so before it brings what it has written, or after, when the hub may have found it."""
    hub, now = fleet.hub, renewed(ONE)
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(hub, *ONE.blocks(COMMON + MINE, []))
    give(hub, *branch)
    again = [block.raw for block in now.blocks(as_of(THEIRS, now), [])]
    if not said_first:
        hub.merge(again, [now.certificate]).result()
    assert hub.note_said([branch[0].hash, b"?" * 32]).result() in ({1} if said_first else {0, 1})
    if said_first:
        hub.merge(again, [now.certificate]).result()
    resolved(hub, REISSUED)
    assert hub.adopt([branch[0].hash]).result() == 0
    settled(hub, 250 - 70)


def test_what_the_terminal_only_says_it_has_written_again_is_adopted(fleet: Fleet) -> None:
    """Invariants 3 and 4: it burnt down before it brought it. Its word takes nothing back either."""
    hub = fleet.hub
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(hub, *ONE.blocks(COMMON + MINE, []))
    give(hub, *branch)
    assert hub.note_said([branch[0].hash]).result() == 1
    assert hub.note_said([branch[0].hash]).result() == 0
    assert hub.adopt([branch[0].hash]).result() == 3
    assert hub.note_said([branch[0].hash]).result() == 0
    fleet.hub_database.close()
    fleet.open_hub()
    give(fleet.hub, *OTHER.blocks(facts((9, Kind.FARE, -1), author=OTHER), []))
    settled(fleet.hub, -1, on=9)
    settled(fleet.hub, 250 - 70)
    resolved(fleet.hub, ADOPTED)


def test_a_terminal_thought_dead_that_writes_again_does_not_double_anything(fleet: Fleet) -> None:
    """The hub takes back what it adopted; openings are one anyway. After a restart too."""
    hub, now = fleet.hub, renewed(ONE)
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(hub, *ONE.blocks(COMMON + MINE, []))
    give(hub, *branch)
    hub.adopt([branch[0].hash]).result()
    again = [block.raw for block in now.blocks(as_of(THEIRS, now), [])]
    hub.merge(again, [now.certificate]).result()
    resolved(hub, UNDONE)
    settled(hub, 250 - 70)
    assert hub.balance(card(2)).result() == -200
    assert hub.balance(card(3)).result() == 500
    assert hub.books().result().balance
    hub.note_said([branch[0].hash]).result()
    fleet.hub_database.close()
    fleet.open_hub()
    fleet.hub.merge(again, [now.certificate]).result()
    assert fleet.hub.balance(card(1)).result() == 250 - 70
    resolved(fleet.hub, UNDONE)


@pytest.mark.parametrize("copy_of", [(OTHER, ONE), (ONE, OTHER)])
def test_a_copy_under_another_name_that_writes_again_does_not_double_anything(
    fleet: Fleet, copy_of: tuple[world.Terminal, world.Terminal]
) -> None:
    """Whichever of the two was paired with the other one's storage."""
    hub = fleet.hub
    terminal, origin = (one.certificate.terminal for one in copy_of)
    hub.amend(lambda amendment: copies.note(amendment.connection, terminal, origin)).result()
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(hub, *ONE.blocks(COMMON + MINE, []))
    give(hub, *branch)
    hub.adopt([branch[0].hash]).result()
    give(hub, *OTHER.blocks(as_of(THEIRS, OTHER), []))
    resolved(hub, UNDONE)
    settled(hub, 250 - 70)
    assert hub.balance(card(2)).result() == -200


@pytest.mark.parametrize("adopted_first", [True, False])
def test_a_terminal_that_wrote_again_without_saying_so_is_known_by_what_it_wrote(
    fleet: Fleet, adopted_first: bool
) -> None:
    """Invariant 5: it was paired again, so nothing tells which blocks it has written again."""
    hub, now = fleet.hub, renewed(ONE)
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(hub, *ONE.blocks(COMMON + MINE, []))
    give(hub, *branch)
    again = [block.raw for block in now.blocks(as_of(THEIRS[:2], now), [1])]
    if adopted_first:
        assert hub.adopt([branch[0].hash]).result() == 3
        for raw in again:
            hub.merge([raw], [now.certificate]).result()
        settled(hub, 250 - 70)
    else:
        hub.merge(again, [now.certificate]).result()
        assert hub.adopt([branch[0].hash]).result() == 1
    fleet.hub_database.close()
    fleet.open_hub()
    settled(fleet.hub, 250 - 70)
    settled(fleet.hub, -200, on=2)
    assert fleet.hub.balance(card(3)).result() == 500
    assert fleet.hub.books().result().balance


def test_of_a_replaced_identity_what_no_other_wrote_is_adopted(fleet: Fleet) -> None:
    """That is how facts come back that only a peer still had."""
    hub, now = fleet.hub, renewed(ONE)
    body = Revocations().with_replaced({ONE.key.replica: 0}).encode()
    hub.put_document(SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)).result()
    late = ONE.blocks(COMMON, [])
    hub.merge([block.raw for block in now.blocks(as_of(COMMON[:1], now), [])], [now.certificate]).result()
    give(hub, *late)
    assert hub.balance(card(1)).result() == 500
    assert hub.adopt([late[0].hash]).result() == 1
    assert hub.balance(card(1)).result() == 250
    assert hub.books().result().balance


def test_what_a_revoked_author_wrote_is_not_adopted(fleet: Fleet) -> None:
    """It comes back when the cut-off is moved; adopted it would count twice then."""
    blocks = ONE.blocks(COMMON, [])
    body = Revocations({ONE.key.replica: 0}).encode()
    document = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)
    fleet.hub.put_document(document).result()
    give(fleet.hub, *blocks)
    with pytest.raises(MisuseError):
        fleet.hub.adopt([blocks[0].hash]).result()


def test_invariant_10_the_hub_adopts_within_its_own_limits(fleet: Fleet) -> None:
    """Another kind of the same amount would move the same money, and be no ride."""
    give(fleet.hub, *ONE.blocks(COMMON, []))
    fares = ONE.blocks(facts((1, Kind.FARE, -70), (1, Kind.FARE, 0)), [])
    opening = ONE.blocks(facts((3, Kind.OPENING, 500)), [])
    give(fleet.hub, *fares, *opening)
    key = SigningKey(b"M" * 32)
    limits = Limits(frozenset({Kind.FARE, Kind.ADJUSTMENT}), 1_000, 1_000)
    modest = issue(world.FLEET_KEY, world.HUB.terminal, "depot", Role.HUB, key.public_key, limits)
    adopter = Adopter(key, modest, authors_of)
    adopted = fleet.hub_database.write_and_wait(
        lambda connection: adopter.adopt(connection, [fares[0].hash], 9)
    )
    assert adopted.facts == 2
    with pytest.raises(NotPermitted):
        fleet.hub_database.write_and_wait(lambda connection: adopter.adopt(connection, [opening[0].hash], 9))
    assert [entry.resolution for entry in in_quarantine(fleet.hub).result()].count(OPEN) == 1


@given(
    common=st.integers(0, 4),
    counted=st.lists(st.integers(-9, -1), max_size=4),
    branches=st.lists(st.lists(st.integers(-9, -1), min_size=1, max_size=4), min_size=1, max_size=2),
    sizes=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_adopting_every_distinct_fact_counts_exactly_once(
    common: int,
    counted: list[int],
    branches: list[list[int]],
    sizes: list[int],
    order: Random,
    new_fleet: NewFleet,
) -> None:
    """Whatever was sealed together, and in whichever order it is adopted, also twice."""
    base = [(1, Kind.FARE, -250)] * common
    chains = [facts(*base, *((1, Kind.FARE, amount) for amount in one)) for one in [counted, *branches]]
    blocks = [ONE.blocks(chain, [size] * 8) for chain, size in zip(chains, sizes, strict=False)]
    with closing(new_fleet(0)) as fleet:
        fleet.hub.merge([block.raw for block in blocks[0]], world.CERTIFICATES).result()
        for chain in blocks[1:]:
            give(fleet.hub, *chain)
        hashes = [entry.hash for entry in in_quarantine(fleet.hub).result()]
        order.shuffle(hashes)
        for one in [*hashes, *hashes]:
            fleet.hub.adopt([one]).result()
        kept = {entry.hash for entry in in_quarantine(fleet.hub).result()}
        held = fleet.hub.blocks_after(ONE.key.replica, 0, 1 << 20).result()
        everything = {delta for raw in held for delta in deltas_of(parse(raw))}
        for chain in blocks[1:]:
            everything |= {delta for block in chain if block.hash in kept for delta in deltas_of(block)}
        expected = added_up(everything)
        assert fleet.hub.balance(card(1)).result() == (expected[card(1)].balance_minor if expected else 0)
        assert fleet.hub.books().result().balance
