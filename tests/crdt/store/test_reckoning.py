"""Invariant 3: what the hub has to write follows from who has written a fact how often, and nothing else."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crdt.facts import Delta, Kind
from crdt.store.content import Content
from crdt.store.reckoning import Held, reckon, reckon_ride
from crdt.store.resolutions import ADOPTED, OPEN, PART, REISSUED, SAID, UNDONE
from tests.crdt.store.branches import facts

(FARE,) = facts((1, Kind.FARE, -250))
(FREE,) = facts((1, Kind.FARE, 0))
(TOPUP,) = facts((1, Kind.TOPUP, 250))
(OPENING,) = facts((1, Kind.OPENING, 500))
COUNTS = st.integers(0, 4)


def held(fact: Delta, theirs: int, copies: int = 0, backs: int = 0) -> Held:
    """What the terminal has written so often, and the hub has copied and taken back so often."""
    content = Content.of(fact)
    hubs = Counter({content: copies}) + Counter({content.back: backs})
    return Held(Counter({content: theirs}), hubs)


@given(
    fact=st.sampled_from([FARE, FREE, TOPUP]),
    theirs=st.integers(0, 1),
    copies=COUNTS,
    backs=COUNTS,
    once_more=st.booleans(),
)
def test_what_is_due_makes_a_fact_count_once_and_nothing_is_due_then(
    fact: Delta, theirs: int, copies: int, backs: int, once_more: bool
) -> None:
    """Where anybody has it, or has ever adopted it; and whatever was written too often, either way."""
    found = reckon([fact], held(fact, theirs, copies, backs), own=False)
    if once_more:
        found = found.adopted()
    written = [Content.of(fact) for fact in found.due]
    copies += written.count(Content.of(fact))
    backs += written.count(Content.of(fact).back)
    once = bool(theirs or copies or backs)
    assert theirs + copies - backs == once
    assert bool(found.lacking) is not once
    again = reckon([fact], held(fact, theirs, copies, backs), own=False)
    assert (again.due, again.lacking) == ([], list(found.lacking))
    assert again.resolution(OPEN) == found.resolution(OPEN)


@pytest.mark.parametrize(
    ("theirs", "copies", "backs", "before", "resolution"),
    [
        (0, 0, 0, OPEN, OPEN),
        (0, 0, 0, SAID, SAID),
        (0, 0, 0, REISSUED, OPEN),
        (1, 0, 0, SAID, REISSUED),
        (0, 1, 0, OPEN, ADOPTED),
        (1, 1, 0, ADOPTED, UNDONE),
        (1, 1, 1, OPEN, UNDONE),
        (0, 1, 1, UNDONE, ADOPTED),
    ],
)
def test_what_has_become_of_a_block_is_told_by_the_facts(
    theirs: int, copies: int, backs: int, before: str, resolution: str
) -> None:
    """Only that its terminal was to write it again is not in them."""
    assert reckon([FARE], held(FARE, theirs, copies, backs), own=False).resolution(before) == resolution


def test_a_block_of_which_the_hub_has_copied_a_part_is_still_to_be_decided_about() -> None:
    """And the rest is what an adoption books."""
    found = reckon([FARE, OPENING], held(FARE, 0, 1), own=False)
    assert (found.resolution(OPEN), found.lacking) == (PART, [OPENING])


def test_two_fares_of_one_moment_in_one_block_count_twice_unless_a_terminal_says_one() -> None:
    """A reader takes no two, but nothing else forbids them."""
    twice = [FARE, replace(FARE, seq=2)]
    assert len(reckon(twice, held(FARE, 0), own=False).lacking) == 2
    assert len(reckon(twice, held(FARE, 1), own=False).lacking) == 0, "one of a terminal's stands for both"
    back = reckon(twice, held(FARE, 1, 2), own=False).due
    assert [Content.of(fact) for fact in back] == [Content.of(FARE).back] * 2


@given(times=st.integers(1, 300), copies=COUNTS, backs=COUNTS, theirs=st.integers(0, 300))
def test_a_block_alone_never_raises_what_the_hub_counts(
    times: int, copies: int, backs: int, theirs: int
) -> None:
    """Invariant 10: nobody has looked whether its author might write it.

    Nor does the hub write for ever where two blocks, or two terminals, say the same differently often.
    """
    forged = [replace(FARE, seq=seq) for seq in range(1, times + 1)]
    content = Content.of(FARE)
    for facts_of in (forged, [FARE], forged):
        hubs = Counter({content: copies}) + Counter({content.back: backs})
        due = reckon(facts_of, Held(Counter({content: theirs}), hubs), own=False).due
        up = sum(Content.of(fact) == content for fact in due)
        counted = copies - backs
        copies, backs = copies + up, backs + len(due) - up
        assert copies - backs <= max(counted, 0 if theirs else 1)
        assert up == 0 or len(due) == up
    assert not reckon(forged, Held(Counter({content: theirs}), hubs), own=False).due


def test_a_fare_is_not_the_contrary_of_an_opening_as_large() -> None:
    """The first ride of a card that is given just that: both are of one moment and place."""
    opening = replace(OPENING, amount_minor=250, at_ms=FARE.at_ms, context=FARE.context)
    found = reckon([opening, FARE], Held(), own=False)
    assert list(found.lacking) == [opening, FARE]
    once = Held(hubs=Counter(map(Content.of, found.lacking)))
    assert not reckon([opening, FARE], once, own=False).due
    both = Held(theirs=once.hubs, hubs=once.hubs)
    assert [fact.amount_minor for fact in reckon([opening, FARE], both, own=False).due] == [250]


def test_an_opening_is_never_taken_back() -> None:
    """Of a card's openings one counts anyway."""
    found = reckon([OPENING], held(OPENING, 1, 1), own=False)
    assert (found.due, found.lacking) == ([], [])


@pytest.mark.parametrize(
    ("sold", "back", "taken"),
    [
        (Kind.FARE, Kind.REVERSAL, True),
        (Kind.FARE, Kind.DUPLICATE, True),
        (Kind.FARE, Kind.ADJUSTMENT, False),
        (Kind.FARE, Kind.TOPUP, False),
        (Kind.TOPUP, Kind.RETRACTION, True),
        (Kind.REFUND, Kind.RETRACTION, True),
        (Kind.ADJUSTMENT, Kind.RETRACTION, True),
        (Kind.TOPUP, Kind.ADJUSTMENT, False),
        (Kind.ADJUSTMENT, Kind.ADJUSTMENT, False),
    ],
)
def test_in_a_branch_of_the_hubs_own_what_takes_back_is_not_adopted(
    sold: Kind, back: Kind, taken: bool
) -> None:
    """What the hub has sold or corrected is not of those kinds, at whatever moment."""
    amount_minor = -250 if sold is Kind.FARE else 250
    about = replace(FARE, kind=sold, amount_minor=amount_minor)
    fact = replace(FARE, kind=back, amount_minor=-amount_minor)
    found = reckon([fact], held(about, 1), own=True)
    assert list(found.lacking) == ([] if taken else [fact])


@pytest.mark.parametrize("kind", [Kind.REVERSAL, Kind.RETRACTION, Kind.DUPLICATE, Kind.REINSTATED])
def test_what_takes_back_is_never_adopted(kind: Kind) -> None:
    """What it is about need not be here yet: it says all."""
    back = replace(FARE, kind=kind, amount_minor=-250 if kind is Kind.REINSTATED else 250)
    assert not reckon([back], Held(), own=True).lacking


@pytest.mark.parametrize("kind", [Kind.TOPUP, Kind.REFUND, Kind.ADJUSTMENT])
def test_what_the_hub_sells_at_the_moment_of_a_fare_takes_no_copy_of_it_back(kind: Kind) -> None:
    """Nor is it a sign that the fare was adopted."""
    sale = Content.of(replace(FARE, kind=kind, amount_minor=250))
    found = reckon([FARE], Held(hubs=Counter({sale: 1})), own=False)
    assert (list(found.due), list(found.lacking)) == ([], [FARE])


@given(times=st.integers(1, 3), theirs=COUNTS, copies=COUNTS, backs=COUNTS, most=COUNTS)
def test_what_is_in_quarantine_and_what_counts_agree_on_what_is_due(
    times: int, theirs: int, copies: int, backs: int, most: int
) -> None:
    """Invariant 3: neither writes what the other takes back, whoever is asked first or again."""
    assume(copies or backs)
    content = Content.of(FARE)
    facts_of = [replace(FARE, seq=seq) for seq in range(1, times + 1)]
    for asked in range(6):
        hubs = Counter({content: copies}) + Counter({content.back: backs})
        now = Held(Counter({content: theirs}), hubs)
        due = reckon_ride(FARE, now, most) if asked % 2 else reckon(facts_of, now, own=False).due
        up = sum(Content.of(fact) == content for fact in due)
        copies, backs = copies + up, backs + len(due) - up
        assert asked < 2 or not due
    assert theirs == 0 or copies == backs


@pytest.mark.parametrize(
    ("theirs", "copies", "backs", "most", "due"),
    [
        (1, 1, 0, 1, [-1]),
        (1, 2, 1, 1, [-1]),
        (1, 0, 1, 0, [1]),
        (1, 1, 1, 1, []),
        (0, 1, 0, 1, []),
        (0, 2, 0, 1, [-1]),
        (0, 2, 0, 2, []),
        (0, 1, 1, 1, [1]),
        (0, 0, 1, 0, [1, 1]),
    ],
)
def test_a_ride_that_was_ever_adopted_counts_as_a_terminals_or_as_the_hubs(
    theirs: int, copies: int, backs: int, most: int, due: list[int]
) -> None:
    """What it was taken back for may be lost, and come again."""
    found = reckon_ride(FARE, held(FARE, theirs, copies, backs), most)
    assert [1 if Content.of(fact) == Content.of(FARE) else -1 for fact in found] == due
