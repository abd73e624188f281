"""What changed lately, kept change by change: the same as gone through from the beginning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.cursor import Cursor
from crdt.store import recent
from crdt.store.recent import Changed, Recent

SETS = st.lists(st.sets(st.integers(0, 30), max_size=12), max_size=12)


@pytest.mark.parametrize("many", [0, 3, 500], ids=["all at once", "either way", "one by one"])
@given(changes=SETS, drops=st.lists(st.integers(0, 5), min_size=12, max_size=12))
def test_each_thing_is_there_once_at_its_last_place(
    many: int, changes: list[set[int]], drops: list[int]
) -> None:
    """As if all changes were gone through again, whichever way is the quicker one."""
    kept: Recent[int, str] = Recent()
    expected: list[tuple[Cursor, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent, "MANY", many)
        for position, (keys, dropped) in enumerate(zip(changes, drops, strict=False), 1):
            places = [Cursor(position, bytes([key])) for key in sorted(keys)]
            kept.add([Changed(place, place.card[0], f"{place}") for place in places])
            expected = [one for one in expected if one[1] not in keys]
            expected += [(place, place.card[0]) for place in places]
            dropped = min(dropped, len(expected))
            kept.drop(dropped)
            del expected[:dropped]
            assert kept.places == [place for place, _ in expected]
            assert kept.values == [f"{place}" for place, _ in expected]
