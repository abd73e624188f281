"""The cards of settlement pages on a terminal: staged as they come, merged by card when all are there.

Each page makes a run: its rows, packed, by card, in segments that are stored as one row each, because
binding and storing a card at a time costs more than all else about a first load. Segments are read in the
order of their first cards, so that each is read once, and what waits in memory is a segment of each run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from struct import Struct
from typing import Final

from sqlalchemy import Connection, func, select

from crdt.settlement import CardRow
from crdt.store.connection import driver_connection
from crdt.store.staged_heads import last_head_run
from crdt.store.statement import Statement
from crdt.store.terminal_schema import STAGED, inserting

SEGMENT_ROWS: Final = 9  # 435 bytes with the key: what SQLite stores within a page of 2 KiB, four to a page
BATCH_SEGMENTS: Final = 400  # read at a time: about two megabytes as rows

# Begins with the card, so that packed rows sort by card; and then by run, of which the last counts.
_ROW: Final = Struct(">16sBIqqBq")  # card, its length, run, sum, opening, flags, number
_PLACE: Final = Struct(">16sBI")  # the beginning of a row, which is that of its segment
_CARD_END: Final = 17  # of the card and its length, within a row

_STAGE: Final = inserting(STAGED)
_LAST_RUN: Final = Statement(select(func.max(STAGED.c.run)))
_PLACES: Final = "SELECT card, length(card), run FROM staged WHERE run >= ?"
_SEGMENT: Final = "SELECT cards FROM staged WHERE run = ? AND card = ?"

Row = tuple[bytes, int, int, int, int]  # card, sum_minor, opening_minor, flags, number


def stage_rows(connection: Connection, run: int, rows: Sequence[CardRow]) -> None:
    """Store rows, of different cards, as a run."""
    packed = sorted(_ROW.pack(row[0], len(row[0]), run, *row[1:]) for row in rows)
    parts = [packed[at : at + SEGMENT_ROWS] for at in range(0, len(packed), SEGMENT_ROWS)]
    if parts:
        segments = [(run, _card(part[0]), bytearray(b"".join(part))) for part in parts]
        connection.exec_driver_sql(_STAGE, segments)


def next_run(connection: Connection, since: int) -> int:
    """The number that the next run gets, at least `since`; numbers of deleted runs do not come again."""
    last: int | None = _LAST_RUN.value(connection)
    return max(since, (last or 0) + 1, last_head_run(connection) + 1)


def staged_places(connection: Connection, since: int) -> list[bytes]:
    """Where the segments of the runs from this one on begin, by card; a few megabytes for a million cards."""
    found = driver_connection(connection).execute(_PLACES, (since,))
    return sorted(_PLACE.pack(*place) for place in found)


def staged_rows(connection: Connection, places: Sequence[bytes]) -> list[bytes]:
    """The packed rows of the segments that begin at these places."""
    driver = driver_connection(connection)
    rows: list[bytes] = []
    for place in places:
        run = int.from_bytes(place[_CARD_END:], "big")
        (segment,) = driver.execute(_SEGMENT, (run, _card(place))).fetchone()
        rows += [segment[at : at + _ROW.size] for at in range(0, len(segment), _ROW.size)]
    return rows


def merged(rows: Sequence[bytes], following: bytes | None) -> tuple[list[Row], list[bytes]]:
    """Of the cards before `following`, the rows that count, by card; and all other rows, packed.

    `following`: the next place whose segment is not among the rows; None when all are.
    """
    ordered = sorted(rows)
    end = len(ordered) if following is None else bisect_left(ordered, following[:_CARD_END])
    last = {row[:_CARD_END]: row for row in ordered[:end]}
    unpacked = _ROW.iter_unpack(b"".join(last.values()))
    rows_by_card = [
        (card[:size], sum_minor, opening_minor, flags, number)
        for card, size, _run, sum_minor, opening_minor, flags, number in unpacked
    ]
    return rows_by_card, ordered[end:]


def _card(row: bytes) -> bytearray:
    """The card at the beginning of a row or a place, for the driver: see `settled.put_rows`."""
    return bytearray(row[: row[_CARD_END - 1]])
