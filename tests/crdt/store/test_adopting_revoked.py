"""Invariant 3: what an operator adopted counts once, however the cut-off of its author moves afterwards."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.block import parse
from crdt.facts import NEW_CARD, Delta, Kind, ReplicaId
from crdt.revocations import Revocations
from crdt.store.content import Content
from crdt.store.resolutions import ADOPTED, UNDONE
from tests.crdt.store.branches import COMMON, MINE, ONE, OTHER, THEIRS, as_of, facts
from tests.crdt.store.depots import CARDS, EVERYTHING, HUB_EVENTS, TWICE, Depot
from tests.crdt.store.fleet import added_up, card, deltas_of
from tests.crdt.store.test_adopting_put_back import balances, give_all, resolutions

LATE = facts((1, Kind.FARE, -5), first=4)
CHAIN = ONE.blocks([*COMMON, *MINE, *LATE], [3])
BRANCH = ONE.blocks(COMMON + THEIRS, [4])
AGAIN = TWICE.blocks(as_of([*LATE, *THEIRS], TWICE), [1, 1])
NEVER, BEFORE, AFTER = (Revocations({ONE.key.replica: seq}) for seq in (0, 3, 4))
REPLACED = Revocations().with_replaced({ONE.key.replica: 3})


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    """A hub that holds the chain up to the late block."""
    with closing(Depot(tmp_path)) as depot:
        yield depot


def adopt_late(depot: Depot) -> None:
    """The late block comes after its author was replaced, and an operator adopts it."""
    depot.revoke(REPLACED)
    depot.give(CHAIN)
    depot.adopt()


def go_back(depot: Depot) -> None:
    """The hub is put back to a moment ago, and goes on as its next identity."""
    depot.keep()
    depot.sell()
    depot.go_back(noticed=True)
    depot.bring_back()


@pytest.mark.parametrize("identities", [1, 2, 3])
def test_what_was_adopted_then_accepted_and_then_revoked_again_still_counts(
    depot: Depot, identities: int
) -> None:
    """Whether the hub has had one identity or several: an operator has adopted it, and nobody else has it."""
    once = [*COMMON, *MINE, *LATE]
    adopt_late(depot)
    assert depot.believes() == balances(once)
    if identities > 1:
        go_back(depot)
    depot.revoke(AFTER)
    assert depot.believes() == balances([*once, *depot.sold])
    assert resolutions(depot) == {UNDONE}
    depot.revoke(BEFORE)
    if identities > 2:
        go_back(depot)
    assert depot.believes() == balances([*once, *depot.sold])
    assert resolutions(depot) == {ADOPTED}
    depot.restart()
    assert depot.believes() == balances([*once, *depot.sold])


def test_what_was_taken_back_for_a_chain_that_is_revoked_is_booked_again(depot: Depot) -> None:
    """The new identity of its terminal, under which it had written the same again."""
    adopt_late(depot)
    depot.give(AGAIN)
    depot.rest()
    assert resolutions(depot) == {UNDONE}
    depot.revoke(Revocations({**REPLACED.cut_offs, TWICE.key.replica: 0}, REPLACED.replaced))
    assert depot.believes() == balances([*COMMON, *MINE, *LATE])


def test_what_nobody_adopted_does_not_come_back_by_itself(depot: Depot) -> None:
    """An operator has revoked it, and the hub has no sign of another decision."""
    depot.revoke(BEFORE)
    depot.give(CHAIN)
    depot.revoke(AFTER)
    assert depot.believes() == balances([*COMMON, *MINE, *LATE])
    depot.revoke(BEFORE)
    assert depot.believes() == balances([*COMMON, *MINE])


EVENTS: Final[Mapping[str, Callable[[Depot], None]]] = {
    "a branch comes": lambda depot: depot.give(BRANCH),
    "the late block comes": lambda depot: depot.give(CHAIN),
    "the operator adopts": Depot.adopt_what_may_be,
    "all of it is revoked": lambda depot: depot.revoke(NEVER),
    "the terminal is replaced": lambda depot: depot.revoke(REPLACED),
    "the late block is revoked": lambda depot: depot.revoke(BEFORE),
    "the late block is accepted": lambda depot: depot.revoke(AFTER),
    **HUB_EVENTS,
    "the terminal writes again": lambda depot: depot.give(AGAIN[:2]),
}
LISTS: Final = {
    "revoked from the beginning": NEVER,
    "revoked late": BEFORE,
    "accepted": AFTER,
    "replaced": REPLACED,
}


def by_terminals(depot: Depot) -> list[Delta]:
    """What counts of all that terminals have written."""
    replicas = [author.key.replica for author in (ONE, TWICE, OTHER)]
    raws = [raw for one in replicas for raw in depot.hub.blocks_after(one, 0, EVERYTHING).result()]
    return [delta for raw in raws for delta in deltas_of(parse(raw))]


_SIGNS: Final = {Kind.FARE: 1, Kind.REVERSAL: -1, Kind.DUPLICATE: -1, Kind.REINSTATED: 1}


def rides_of(written: Iterable[Delta]) -> Counter[Content]:
    """How often each ride counts."""
    found: Counter[Content] = Counter()
    for delta in written:
        if sign := _SIGNS.get(delta.kind):
            amount_minor = -abs(delta.amount_minor)
            found[Content.of(delta)._replace(kind=Kind.FARE, amount_minor=amount_minor)] += sign
    return found


def said_once(written: Iterable[Delta]) -> list[Delta]:
    """Each content as often as the author has written it that wrote it most often."""
    by: defaultdict[ReplicaId, Counter[Content]] = defaultdict(Counter)
    for delta in written:
        by[delta.replica][Content.of(delta)] += 1
    most: Counter[Content] = Counter()
    for times in by.values():
        most |= times
    return [content.by(ONE.key.replica) for content in most.elements()]


def counted(depot: Depot) -> dict[int, int]:
    """What cards have by the terminals' chains, and once by what the hub ever copied and they do not say."""
    theirs = said_once(by_terminals(depot))
    copies = {Content.of(delta): delta for delta in depot.counted()}
    states = added_up([*theirs, *(copies[one] for one in copies.keys() - set(map(Content.of, theirs)))])
    return {number: states.get(card(number), NEW_CARD).balance_minor for number in CARDS}


@given(
    events=st.lists(st.sampled_from(sorted(EVENTS)), max_size=14),
    listed=st.sampled_from(sorted(LISTS)),
)
@settings(max_examples=25, deadline=None)
def test_however_cut_offs_move_each_fact_that_counts_counts_once(
    events: list[str], listed: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And whatever was ever adopted counts, under however many identities of the hub, and after a restart."""
    with closing(Depot(tmp_path_factory.mktemp("depot"))) as depot:
        for event in events:
            EVENTS[event](depot)
        depot.note()
        depot.restart()
        depot.revoke(LISTS[listed])
        give_all(depot, [*CHAIN, *BRANCH])
        once = depot.believes()
        assert once == counted(depot)
        written = depot.own_facts()
        depot.restart()
        give_all(depot, [*CHAIN, *BRANCH])
        assert depot.believes() == once
        assert depot.own_facts() == written
        depot.go_back_to_now()
        assert depot.believes() == once
        assert len(depot.own_facts()) == len(written)
