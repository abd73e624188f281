"""A fork is resolved without losing or doubling anybody's money (invariants 3 and 5)."""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.block import Block, parse, seal
from crdt.certificate import AuthorCertificate, Limits, Role, issue
from crdt.documents import SignedDocument
from crdt.errors import MisuseError, NotPermitted
from crdt.facts import Context, Delta, Draft, Kind, TerminalId
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from crdt.store import quarantine
from crdt.store.adopting import CHECKED_AT_ONCE, Adopter, Adoption
from crdt.store.blocks import authors_of
from crdt.store.hub import Change, HubLedger
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, added_up, card, deltas_of
from tests.crdt.store.quarantined import at_rest, in_quarantine
from tests.crdt.store.stores import NewFleet

ONE, OTHER, _ = world.TERMINALS
TOPUP = Draft(Kind.TOPUP, 1000)
PATIENCE_S = 30
MANY_STEPS = 100


@pytest.fixture
def fleet(new_fleet: NewFleet) -> Iterator[Fleet]:
    """A new hub that knows the terminals."""
    fleet = new_fleet(0)
    fleet.hub.merge([], world.CERTIFICATES).result()
    yield fleet
    fleet.close()


def facts(*money: tuple[int, Kind, int], first: int = 1, author: world.Terminal = ONE) -> list[Delta]:
    """Facts of an author: card, kind, amount."""
    return [
        Delta(author.key.replica, seq, card(number), kind, amount, 1_000 + seq, Context("12", "", "town"))
        for seq, (number, kind, amount) in enumerate(money, first)
    ]


def give(hub: HubLedger, *blocks: Block) -> None:
    """Merge and wait."""
    hub.merge([block.raw for block in blocks]).result()


def settled(hub: HubLedger, minor: int, on: int = 1) -> None:
    """Wait until a card has this balance."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if hub.balance(card(on)).result() == minor:
            return
        pause.wait(0.01)
    raise AssertionError(f"{hub.balance(card(on)).result()} instead of {minor}")


COMMON = facts((1, Kind.OPENING, 500), (1, Kind.FARE, -250))
MINE = facts((2, Kind.FARE, -100), first=3)
THEIRS = facts((1, Kind.FARE, -70), (2, Kind.FARE, -100), (3, Kind.OPENING, 500), first=3)


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
    assert {entry.resolution for entry in in_quarantine(hub).result()} == {quarantine.ADOPTED}
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


def renewed(author: world.Terminal, seed: bytes = b"N") -> world.Terminal:
    """The same terminal under another identity; or the hub, whose identities are no terminal's."""
    key, before = SigningKey(seed * 32), author.certificate
    terminal = TerminalId(key.replica) if before.role is Role.HUB else before.terminal
    certificate = issue(world.FLEET_KEY, terminal, before.name, before.role, key.public_key, before.limits)
    return replace(author, key=key, certificate=certificate)


LATER = renewed(world.Terminal(world.HUB_KEY, world.HUB), b"L")


def as_of(facts_of: list[Delta], author: world.Terminal) -> list[Delta]:
    """The same facts by another author, numbered from 1."""
    return [
        replace(delta, replica=author.key.replica, seq=seq) for seq, delta in enumerate(facts_of, start=1)
    ]


def resolved(hub: HubLedger, how: str) -> None:
    """Wait until this is what became of all that is in quarantine."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if {entry.resolution for entry in in_quarantine(hub).result()} == {how}:
            return
        pause.wait(0.01)
    raise AssertionError(f"{[entry.resolution for entry in in_quarantine(hub).result()]} instead of {how}")


@pytest.mark.parametrize("said_first", [True, False])
def test_what_the_terminal_has_written_again_is_not_adopted(fleet: Fleet, said_first: bool) -> None:
    """Whether it says so before it brings what it has written, or after."""
    hub, now = fleet.hub, renewed(ONE)
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(hub, *ONE.blocks(COMMON + MINE, []))
    give(hub, *branch)
    again = [block.raw for block in now.blocks(as_of(THEIRS, now), [])]
    if not said_first:
        hub.merge(again, [now.certificate]).result()
    assert hub.note_said([branch[0].hash, b"?" * 32]).result() == 1
    if said_first:
        hub.merge(again, [now.certificate]).result()
    resolved(hub, quarantine.REISSUED)
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
    resolved(fleet.hub, quarantine.ADOPTED)


def test_a_terminal_thought_dead_that_writes_again_does_not_double_anything(fleet: Fleet) -> None:
    """The hub takes back what it adopted; openings are one anyway. After a restart too."""
    hub, now = fleet.hub, renewed(ONE)
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(hub, *ONE.blocks(COMMON + MINE, []))
    give(hub, *branch)
    hub.adopt([branch[0].hash]).result()
    again = [block.raw for block in now.blocks(as_of(THEIRS, now), [])]
    hub.merge(again, [now.certificate]).result()
    resolved(hub, quarantine.UNDONE)
    settled(hub, 250 - 70)
    assert hub.balance(card(2)).result() == -200
    assert hub.balance(card(3)).result() == 500
    assert hub.books().result().balance
    hub.note_said([branch[0].hash]).result()
    fleet.hub_database.close()
    fleet.open_hub()
    fleet.hub.merge(again, [now.certificate]).result()
    assert fleet.hub.balance(card(1)).result() == 250 - 70
    resolved(fleet.hub, quarantine.UNDONE)


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


@pytest.mark.parametrize("first", ["evidence", "facts"])
def test_what_a_replaced_identity_had_and_another_wrote_again_needs_nobody(fleet: Fleet, first: str) -> None:
    """Nobody says of which blocks it was; and many that nobody writes again do not keep one of the others."""
    hub, now = fleet.hub, renewed(ONE)
    body = Revocations().with_replaced({ONE.key.replica: 0}).encode()
    hub.put_document(SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)).result()
    count = 2 * CHECKED_AT_ONCE + 1
    blocks = ONE.blocks(facts(*((1, Kind.FARE, -amount) for amount in range(1, count + 1))), [1] * count)
    last = as_of(list(deltas_of(blocks[-1])), now)
    later = as_of([*deltas_of(blocks[-1]), *facts(*[(2, Kind.FARE, -1)] * 3)], now)
    again = [block.raw for block in now.blocks([*last, *later[1:]], [1] * 4)]
    if first == "evidence":
        give(hub, *blocks)
    for raw in again[:1]:
        hub.merge([raw], [now.certificate]).result()
    if first == "facts":
        give(hub, *blocks)
    for raw in again[1:]:  # each merge of the terminal is an occasion to look at some more
        hub.merge([raw]).result()
        fleet.hub.lag().result()
    await_resolved(hub, {blocks[-1].hash})
    assert hub.adopt([block.hash for block in blocks]).result() == count - 1


def await_resolved(hub: HubLedger, hashes: set[bytes]) -> None:
    """Wait until these blocks alone are known to be written again."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 100):
        kept = in_quarantine(hub).result()
        if {entry.hash for entry in kept if entry.resolution == quarantine.REISSUED} == hashes:
            return
        pause.wait(0.01)
    raise AssertionError(f"{[entry.resolution for entry in kept]}")


def late(hub: HubLedger, count: int) -> list[Block]:
    """So many blocks, of one fare each, that come of an identity after it was replaced."""
    body = Revocations().with_replaced({ONE.key.replica: 0}).encode()
    hub.put_document(SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)).result()
    blocks = ONE.blocks(facts(*((1, Kind.FARE, -amount) for amount in range(1, count + 1))), [1] * count)
    give(hub, *blocks)
    return blocks


def enrolled(hub: HubLedger, count: int) -> None:
    """So many terminals more, of which nothing comes."""
    keys = [SigningKey(bytes([1, place]) * 16) for place in range(count)]
    certificates = [
        issue(
            world.FLEET_KEY,
            TerminalId(key.replica),
            "",
            Role.TERMINAL,
            key.public_key,
            ONE.certificate.limits,
        )
        for key in keys
    ]
    hub.merge([], certificates).result()


def test_looking_for_late_blocks_does_not_read_the_certificates_of_everybody(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write of the hub waits for that meanwhile, so a block must not cost more in a large fleet."""
    hub, now, many = fleet.hub, renewed(ONE), 60
    enrolled(hub, many)
    last = late(hub, 2 * CHECKED_AT_ONCE + 1)[-1]
    again = [block.raw for block in now.blocks(as_of(list(deltas_of(last)), now), [])]
    read: list[bytes] = []
    decode = AuthorCertificate.decode

    def noted(raw: bytes) -> AuthorCertificate:
        read.append(raw)
        return decode(raw)

    monkeypatch.setattr(AuthorCertificate, "decode", noted)
    hub.merge(again, [now.certificate]).result()
    await_resolved(hub, {last.hash})
    assert len(read) < many


def test_a_round_over_what_nobody_writes_again_ends_and_rests(fleet: Fleet) -> None:
    """Once for each time that something of that terminal's came, however long it takes."""
    parts, now = 3, renewed(ONE)
    late(fleet.hub, parts * CHECKED_AT_ONCE - 1)
    fleet.hub.merge([], [now.certificate]).result()
    adopter = Adopter(world.HUB_KEY, world.HUB, authors_of)
    assert len(steps(fleet, adopter)) == 1
    adopter.look([OTHER.key.replica])
    assert len(steps(fleet, adopter)) == 1
    adopter.look([now.key.replica])
    assert len(steps(fleet, adopter)) == parts
    assert len(steps(fleet, adopter)) == 1
    adopter.look([now.key.replica])
    adopter.settle(fleet.hub_database.write_and_wait(lambda connection: adopter.compare(connection, 9)))
    adopter.look([now.key.replica])
    adopter.look([now.key.replica])
    assert len(steps(fleet, adopter)) <= 2 * parts
    assert len(steps(fleet, adopter)) == 1


def test_what_was_adopted_is_compared_in_parts(fleet: Fleet) -> None:
    """Of years of adoptions no one transaction looks at all."""
    parts = 3
    blocks = late(fleet.hub, parts * CHECKED_AT_ONCE - 1)
    fleet.hub.adopt([block.hash for block in blocks]).result()
    adopter = Adopter(world.HUB_KEY, world.HUB, authors_of)
    adopter.look([ONE.key.replica])
    assert len(steps(fleet, adopter)) == parts


def test_a_step_that_was_not_durable_is_taken_again(fleet: Fleet) -> None:
    """Invariant 3: what it would have taken back is not forgotten."""
    late(fleet.hub, 2 * CHECKED_AT_ONCE)
    adopter = Adopter(world.HUB_KEY, world.HUB, authors_of)
    adopter.look([ONE.key.replica])
    first, second = (
        fleet.hub_database.write_and_wait(lambda connection: adopter.compare(connection, 9)) for _ in range(2)
    )
    assert first.more
    assert first == second


def number(delta: Delta) -> int:
    """Which of the test's cards."""
    return int.from_bytes(delta.card[1:], "big")


def test_what_was_said_is_looked_for_when_the_hub_starts(fleet: Fleet) -> None:
    """Whoever noted it, and whatever was in between."""
    now = renewed(ONE)
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(fleet.hub, *ONE.blocks(COMMON + MINE, []))
    give(fleet.hub, *branch)
    again = [block.raw for block in now.blocks(as_of(THEIRS, now), [])]
    fleet.hub.merge(again, [now.certificate]).result()
    fleet.hub_database.write_and_wait(
        lambda connection: quarantine.resolve(connection, [branch[0].hash], quarantine.SAID)
    )
    fleet.hub_database.close()
    fleet.open_hub()
    resolved(fleet.hub, quarantine.REISSUED)


def sold(hub: HubLedger, number: int) -> Block:
    """A top-up that the hub books; its block."""
    head = hub.append(card(number), [TOPUP], 1_000 + number).result().head
    (raw,) = hub.blocks_after(hub.replica, head.seq - 1, 1 << 20).result()
    return parse(raw)


def fork_of(counted: Block, number: int) -> Block:
    """What else a hub whose whole machine was put back booked under the number of that block."""
    seq = counted.header.first_seq
    other = Delta(world.HUB.replica, seq, card(number), TOPUP.kind, TOPUP.amount_minor, 1_000 + number)
    return seal(world.HUB_KEY, world.FLEET, [other], counted.header.previous)


def succeed(fleet: Fleet) -> None:
    """The hub is started again, under its new identity."""
    fleet.hub.close()
    fleet.hub = HubLedger(
        fleet.hub_database, world.FLEET_KEY.public_key, LATER.key, LATER.certificate, entropy=fleet._entropy
    )


def undone(fleet: Fleet) -> int:
    """How many facts the hub takes back of what it has adopted."""
    adopter = Adopter(LATER.key, LATER.certificate, authors_of)
    adopter.look([LATER.key.replica])
    return sum(step.facts for step in steps(fleet, adopter))


def steps(fleet: Fleet, adopter: Adopter) -> list[Adoption]:
    """What it does until it rests."""
    done = []
    for _ in range(MANY_STEPS):
        done.append(fleet.hub_database.write_and_wait(lambda connection: adopter.compare(connection, 9)))
        adopter.settle(done[-1])
        if not done[-1].more:
            return done
    raise AssertionError("it does not rest")


def test_invariant_3_what_is_adopted_of_the_hubs_own_branch_stays(fleet: Fleet) -> None:
    """The adoption is in the history of the hub itself. It is not what tells that it was written again."""
    lost = fork_of(sold(fleet.hub, 1), 2)
    give(fleet.hub, lost)
    succeed(fleet)
    assert fleet.hub.adopt([lost.hash]).result() == 1
    sold(fleet.hub, 3)
    assert undone(fleet) == 0
    succeed(fleet)
    assert undone(fleet) == 0
    assert [fleet.hub.balance(card(number)).result() for number in (1, 2, 3)] == [1000, 1000, 1000]
    resolved(fleet.hub, quarantine.ADOPTED)
    assert fleet.hub.adopt([lost.hash]).result() == 0
    assert fleet.hub.books().result().balance


def test_what_another_identity_of_the_hub_had_adopted_too_counts_once(fleet: Fleet) -> None:
    """The hub was put back once more, and the operator adopted again before the first adoption came back."""
    other = renewed(world.Terminal(world.HUB_KEY, world.HUB), b"O")
    lost = fork_of(sold(fleet.hub, 1), 2)
    give(fleet.hub, lost)
    succeed(fleet)
    hub = fleet.hub
    assert hub.adopt([lost.hash]).result() == 1
    earlier = other.blocks(as_of([*deltas_of(lost)], other), [])
    hub.merge([block.raw for block in earlier], [other.certificate]).result()
    at_rest(hub)
    assert hub.balance(card(2)).result() == 1000
    resolved(hub, quarantine.ADOPTED)


@pytest.mark.parametrize("back_first", [True, False])
def test_what_the_hub_had_adopted_before_it_was_put_back_counts_once(fleet: Fleet, back_first: bool) -> None:
    """Invariant 3: the backup knows nothing of it, so the operator adopts again, before it comes or after."""
    hub, earlier = fleet.hub, renewed(world.Terminal(world.HUB_KEY, world.HUB), b"O")
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(hub, *ONE.blocks(COMMON + MINE, []))
    give(hub, *branch)
    adopted = [block.raw for block in earlier.blocks(as_of(THEIRS, earlier), [])]
    if back_first:
        hub.merge(adopted, [earlier.certificate]).result()
        assert hub.adopt([branch[0].hash]).result() == 0
    else:
        assert hub.adopt([branch[0].hash]).result() == 3
        hub.merge(adopted, [earlier.certificate]).result()
        at_rest(hub)
    resolved(hub, quarantine.ADOPTED)
    settled(hub, 250 - 70)
    settled(hub, -200, on=2)
    assert hub.balance(card(3)).result() == 500
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
    """A kind it may not write becomes an adjustment of the same amount; an opening cannot."""
    give(fleet.hub, *ONE.blocks(COMMON, []))
    fares = ONE.blocks(facts((1, Kind.FARE, -70), (1, Kind.FARE, 0)), [])
    opening = ONE.blocks(facts((3, Kind.OPENING, 500)), [])
    give(fleet.hub, *fares, *opening)
    key = SigningKey(b"M" * 32)
    limits = Limits(frozenset({Kind.ADJUSTMENT}), 1_000, 1_000)
    modest = issue(world.FLEET_KEY, world.HUB.terminal, "depot", Role.HUB, key.public_key, limits)
    adopter = Adopter(key, modest, authors_of)
    adopted = fleet.hub_database.write_and_wait(lambda connection: adopter.adopt(connection, [fares[0].hash], 9))
    assert adopted.facts == 1
    (raw,) = fleet.hub.blocks_after(key.replica, 0, 1 << 20).result()
    assert [(one.kind, one.amount_minor) for one in deltas_of(parse(raw))] == [(Kind.ADJUSTMENT, -70)]
    with pytest.raises(NotPermitted):
        fleet.hub_database.write_and_wait(lambda connection: adopter.adopt(connection, [opening[0].hash], 9))
    assert [entry.resolution for entry in in_quarantine(fleet.hub).result()].count(quarantine.OPEN) == 1


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
