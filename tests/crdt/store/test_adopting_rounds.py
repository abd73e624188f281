"""What lies in quarantine is compared with what comes, in parts, and not more often than it has to be."""

import threading

import pytest

from crdt.block import Block
from crdt.certificate import Role, issue
from crdt.documents import SignedDocument
from crdt.facts import Kind, TerminalId
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from crdt.store import quarantine
from crdt.store.adopting import Adopter
from crdt.store.blocks import authors_of
from crdt.store.hub import HubLedger
from crdt.store.resolutions import REISSUED, SAID
from crdt.store.rounds import BLOCKS_AT_ONCE
from tests.crdt import world
from tests.crdt.store.branches import (
    COMMON,
    MINE,
    ONE,
    OTHER,
    PATIENCE_S,
    THEIRS,
    as_of,
    certificates_read,
    facts,
    give,
    renewed,
    resolved,
    steps,
)
from tests.crdt.store.fleet import Fleet, deltas_of
from tests.crdt.store.quarantined import in_quarantine


@pytest.mark.parametrize("first", ["evidence", "facts"])
def test_what_a_replaced_identity_had_and_another_wrote_again_needs_nobody(fleet: Fleet, first: str) -> None:
    """Nobody says of which blocks it was; and many that nobody writes again do not keep one of the others."""
    hub, now = fleet.hub, renewed(ONE)
    body = Revocations().with_replaced({ONE.key.replica: 0}).encode()
    hub.put_document(SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, 1, body)).result()
    count = 2 * BLOCKS_AT_ONCE + 1
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
        if {entry.hash for entry in kept if entry.resolution == REISSUED} == hashes:
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
    last = late(hub, 2 * BLOCKS_AT_ONCE + 1)[-1]
    again = [block.raw for block in now.blocks(as_of(list(deltas_of(last)), now), [])]
    read = certificates_read(monkeypatch)
    hub.merge(again, [now.certificate]).result()
    await_resolved(hub, {last.hash})
    assert len(read) < many


def test_a_round_over_what_nobody_writes_again_ends_and_rests(fleet: Fleet) -> None:
    """Once for each time that something of that terminal's came, however long it takes."""
    parts, now = 3, renewed(ONE)
    late(fleet.hub, parts * BLOCKS_AT_ONCE - 1)
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
    blocks = late(fleet.hub, parts * BLOCKS_AT_ONCE - 1)
    fleet.hub.adopt([block.hash for block in blocks]).result()
    adopter = Adopter(world.HUB_KEY, world.HUB, authors_of)
    adopter.look([ONE.key.replica])
    assert len(steps(fleet, adopter)) == parts


def test_a_step_that_was_not_durable_is_taken_again(fleet: Fleet) -> None:
    """Invariant 3: what it would have taken back is not forgotten."""
    late(fleet.hub, 2 * BLOCKS_AT_ONCE)
    adopter = Adopter(world.HUB_KEY, world.HUB, authors_of)
    adopter.look([ONE.key.replica])
    first, second = (
        fleet.hub_database.write_and_wait(lambda connection: adopter.compare(connection, 9)) for _ in range(2)
    )
    assert first.more
    assert first == second


def test_what_was_said_is_looked_for_when_the_hub_starts(fleet: Fleet) -> None:
    """Whoever noted it, and whatever was in between."""
    now = renewed(ONE)
    branch = ONE.blocks(COMMON + THEIRS, [])
    give(fleet.hub, *ONE.blocks(COMMON + MINE, []))
    give(fleet.hub, *branch)
    again = [block.raw for block in now.blocks(as_of(THEIRS, now), [])]
    fleet.hub.merge(again, [now.certificate]).result()
    fleet.hub_database.write_and_wait(
        lambda connection: quarantine.resolve(connection, [branch[0].hash], SAID)
    )
    fleet.hub_database.close()
    fleet.open_hub()
    resolved(fleet.hub, REISSUED)
