"""What terminals say of others' chains, at the hub: few rows however many say it, and told while it matters.

Invariant 8: whoever says what, and how often, takes bounded memory and time.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from crdt.documents import SignedDocument
from crdt.facts import Delta, Kind, ReplicaId
from crdt.frontier import Head
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.store.claims import MAX_CLAIMANTS
from crdt.store.connection import driver_connection
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from crdt.store.hub_schema import CLAIMED
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, card

HASH = bytes(range(32))


def buses(hub: HubLedger, count: int) -> list[world.Terminal]:
    """Terminals that the hub knows."""
    found = [world.terminal(number) for number in range(10, 10 + count)]
    hub.merge([], [one.certificate for one in found]).result()
    return found


def ride(author: world.Terminal, count: int = 1) -> list[bytes]:
    """Its chain of so many fares."""
    facts = [Delta(author.key.replica, seq, card(1), Kind.FARE, -250, 1_000) for seq in range(1, count + 1)]
    return [block.raw for block in author.blocks(facts, [1] * count)]


def say(hub: HubLedger, by: world.Terminal, seq: int, *of: world.Terminal) -> None:
    """A terminal's word that these chains go as far as `seq`."""
    named = {one.key.replica: Head(seq, HASH) for one in of if one is not by}
    hub.claim(named, by.key.replica, by.certificate.name, 50).result()


def kept(fleet: Fleet) -> int:
    """How many claims are kept."""
    query = select(func.count()).select_from(CLAIMED)
    return fleet.hub_database.read_and_wait(lambda connection: int(connection.execute(query).scalar_one()))


def unproven(hub: HubLedger) -> dict[ReplicaId, tuple[int, str]]:
    """How far whose chains are said to go, and by whom."""
    found = hub.waiting().result()
    return {one.replica: (one.expected_seq, one.source) for one in found if not one.proven}


def revoke(hub: HubLedger, version: int, revoked: Sequence[world.Terminal]) -> None:
    """Give the hub the list of these."""
    body = Revocations({one.key.replica: 0 for one in revoked}).encode()
    document = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, version, body)
    assert hub.put_document(document).result()


def test_what_everybody_says_of_everybody_is_kept_a_few_times_and_until_it_is_here(fleet: Fleet) -> None:
    """A hub that was put back hears of all chains from all terminals, and gets the chains afterwards."""
    every = buses(fleet.hub, 12)
    for one in every:
        say(fleet.hub, one, 1, *every)
    assert kept(fleet) == MAX_CLAIMANTS * len(every)
    assert {seq for seq, _ in unproven(fleet.hub).values()} == {1}
    fleet.hub.merge([raw for one in every[:5] for raw in ride(one)]).result()
    assert kept(fleet) == MAX_CLAIMANTS * len(every[5:])
    fleet.hub.merge([raw for one in every[5:] for raw in ride(one)]).result()
    assert kept(fleet) == 0
    for one in every:
        say(fleet.hub, one, 1, *every)
    assert kept(fleet) == 0, "it is here"


def test_a_claim_beyond_what_has_come_by_then_stays(fleet: Fleet) -> None:
    near, far, other = buses(fleet.hub, 3)
    say(fleet.hub, near, 1, other)
    say(fleet.hub, far, 2, other)
    fleet.hub.merge(ride(other)).result()
    assert kept(fleet) == 1
    assert unproven(fleet.hub) == {other.key.replica: (2, "bus 11")}
    fleet.hub.merge(ride(other, 2)).result()
    assert kept(fleet) == 0


def test_the_furthest_are_kept_and_a_liar_has_one_place_whatever_it_says(fleet: Fleet) -> None:
    """What one terminal makes up hides nobody else's word for good."""
    liar, other, *honest = buses(fleet.hub, 2 + MAX_CLAIMANTS)
    for seq in range(1, MAX_CLAIMANTS + 2):
        say(fleet.hub, liar, seq << 40, other)
    for seq, one in enumerate(honest, 10):
        say(fleet.hub, one, seq, other)
    assert kept(fleet) == MAX_CLAIMANTS
    assert unproven(fleet.hub)[other.key.replica][1] == liar.certificate.name
    revoke(fleet.hub, 1, [liar])
    last = honest[-1]
    assert unproven(fleet.hub) == {other.key.replica: (9 + MAX_CLAIMANTS, last.certificate.name)}


def test_what_was_given_up_of_as_many_as_are_kept_is_not_said_anew_by_the_rest(fleet: Fleet) -> None:
    """Of a bus that burnt down all others say the same: nobody gives it up once for each of them."""
    dead, *every = buses(fleet.hub, 9)
    for one in every[:MAX_CLAIMANTS]:
        say(fleet.hub, one, 40, dead)
    assert fleet.hub.give_up(dead.key.replica).result()
    for one in every:
        say(fleet.hub, one, 40, dead)
    assert unproven(fleet.hub) == {}
    assert not fleet.hub.give_up(dead.key.replica).result()
    say(fleet.hub, every[-1], 41, dead)
    assert unproven(fleet.hub) == {dead.key.replica: (41, every[-1].certificate.name)}


def test_one_decision_gives_up_what_is_proven_and_what_is_claimed_beyond_it(fleet: Fleet) -> None:
    """Both are told together, so an operator who has decided is not asked again for the other part."""
    dead, other = buses(fleet.hub, 2)
    fleet.hub.expect({dead.key.replica: Head(3, HASH)}, "itself", 50).result()
    say(fleet.hub, other, 2, dead)
    (told,) = fleet.hub.waiting().result()
    assert (told.expected_seq, told.proven, told.claimed_seq) == (3, True, 0), "the word goes no further"
    say(fleet.hub, other, 9, dead)
    (told,) = fleet.hub.waiting().result()
    assert (told.expected_seq, told.proven, told.claimed_seq) == (3, True, 9)
    assert fleet.hub.give_up(dead.key.replica).result()
    assert fleet.hub.waiting().result() == []
    assert not fleet.hub.give_up(dead.key.replica).result()


def test_a_revoked_terminals_word_is_forgotten_and_not_heard_again(fleet: Fleet) -> None:
    """It may have said so in an exchange that ends after its revocation."""
    liar, *others = buses(fleet.hub, 4)
    say(fleet.hub, liar, 1 << 40, *others)
    assert len(unproven(fleet.hub)) == len(others)
    revoke(fleet.hub, 1, [liar])
    assert (kept(fleet), fleet.hub.waiting().result()) == (0, [])
    say(fleet.hub, liar, 1 << 41, *others)
    assert (kept(fleet), fleet.hub.waiting().result()) == (0, [])


def test_invariant_8_what_one_says_costs_the_writer_the_same_however_many_have_said_it(
    database: Database,
) -> None:
    """Counted in SQLite's own steps: another word of one terminal, after 8 terminals' and after 64 more."""
    hub = HubLedger(database, world.FLEET_KEY.public_key, world.HUB_KEY, world.HUB)
    liar, *every = buses(hub, 73)
    missing, steps = every[:6], [0]

    def step() -> int:
        steps[0] += 1
        return 0

    def watch(connection: Connection) -> None:
        driver: Any = driver_connection(connection)
        driver.set_progress_handler(step, 1)

    say(hub, liar, 1_000, *missing)
    database.write_and_wait(watch)
    taken: list[int] = []
    for one in every[8:16], every[16:]:
        for said in one:
            say(hub, said, 900, *missing)
        steps[0] = 0
        say(hub, liar, 1_001 + len(taken), *missing)
        taken.append(steps[0])
    assert 0 < taken[1] <= taken[0]
    hub.close()
