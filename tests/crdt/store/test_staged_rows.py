"""What is staged is merged in pieces as it would be at once (invariant 6: of a card the last word counts)."""

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from crdt.facts import MAX_AMOUNT_MINOR, MAX_CARD_NUMBER, CardId
from crdt.settlement import REFUSED, CardRow
from crdt.store import staged_rows
from crdt.store.staged_rows import Row, merged, stage_rows, staged_places
from crdt.store.terminal_schema import STAGED

# Few distinct cards, of all lengths, many the beginning of another: runs overlap and order is hard.
cards = st.builds(
    lambda byte, length: CardId(bytes([byte]) * length), st.sampled_from((0, 1, 255)), st.integers(4, 16)
)
rows = st.builds(
    CardRow,
    cards,
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, MAX_AMOUNT_MINOR),
    st.integers(0, REFUSED),
    st.integers(0, MAX_CARD_NUMBER),
)
runs = st.lists(st.lists(rows, max_size=20, unique_by=lambda row: row.card), max_size=6)


@contextlib.contextmanager
def empty_table() -> Iterator[Connection]:
    """An empty table of staged rows, to be filled with segments of three."""
    engine = create_engine("sqlite://", poolclass=StaticPool, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection, pytest.MonkeyPatch.context() as patch:
            patch.setattr(staged_rows, "SEGMENT_ROWS", 3)
            STAGED.create(connection)
            yield connection
    finally:
        engine.dispose()


def in_pieces(connection: Connection, since: int, batch: int) -> list[Row]:
    """All rows as the installer merges them, `batch` segments at a time."""
    places, found = staged_places(connection, since), []
    waiting: list[bytes] = []
    for at in range(0, len(places), batch):
        waiting += staged_rows.staged_rows(connection, places[at : at + batch])
        part, waiting = merged(waiting, next(iter(places[at + batch :]), None))
        found += part
    assert not waiting
    return found


@given(runs=runs, since=st.integers(1, 3), batch=st.integers(1, 5))
def test_of_each_card_the_row_of_the_last_run_comes_out_once_and_in_order(
    runs: list[list[CardRow]], since: int, batch: int
) -> None:
    """Whatever the cards, the order in which they came and how many segments are read at a time."""
    with empty_table() as connection:
        for run, staged in enumerate(runs, 1):
            stage_rows(connection, run, staged)
        expected = {row.card: tuple(row) for staged in runs[since - 1 :] for row in staged}
        assert in_pieces(connection, since, batch) == [expected[card] for card in sorted(expected)]
