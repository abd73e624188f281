"""The words for a terminal's state: what an operator reads first."""

import pytest

from crdt.facts import MAX_CLOCK_ERROR_MS, Kind
from hub.evidence import WaitingRow
from hub.figures import span
from hub.kindwords import kind_word
from hub.pages import words
from hub.terminal_row import TerminalRow
from hub.terminalwords import (
    State,
    by_urgency,
    earlier_certificate,
    old_copy,
    recalled,
    remarks,
    terminal_state,
)

NOW_MS = 1_800_000_000_000
FINE = TerminalRow(
    terminal="01" * 16,
    name="Bus 12",
    route="7",
    replica="02" * 16,
    online=True,
    revoked=False,
    last_seen_ms=NOW_MS - 4_000,
    held=0,
    held_minor=0,
    head_seq=9,
    reported_seq=9,
    position=9,
    address="",
    restored_ms=None,
    renewed_ms=None,
)
SILENT = FINE._replace(online=False, last_seen_ms=NOW_MS - 3 * 3_600_000)


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (FINE, State("good", "all taps in")),
        (FINE._replace(held=None), State("good", "all taps in")),
        (
            FINE._replace(silent=1),
            State(
                "waiting", "taps in, as far as anybody knows", "an earlier identity's last ones are unknown"
            ),
        ),
        (FINE._replace(restored_ms=NOW_MS), State("waiting", "taps in, as far as anybody knows")),
        (FINE._replace(held=1), State("waiting", "1 tap held")),
        (FINE._replace(held=12), State("waiting", "12 taps held")),
        (SILENT, State("bad", "not seen for 3 h")),
        (SILENT._replace(held=12), State("bad", "not seen for 3 h", "12 taps held then")),
        (
            FINE._replace(online=False, last_seen_ms=None, held=None),
            State("waiting", "paired, not seen yet"),
        ),
        (SILENT._replace(revoked=True), State("quiet", "revoked")),
    ],
)
def test_state_in_words(row: TerminalRow, state: State) -> None:
    assert terminal_state(row, NOW_MS) == state


def test_what_is_odd_about_a_terminal_is_said_while_it_is_so() -> None:
    """An old copy until it is another identity or is revoked; who calls by an earlier certificate; and what
    has revoked it, where that was no operator of late."""
    put_back = FINE._replace(restored_ms=NOW_MS - 5)
    assert remarks(FINE) == []
    assert remarks(put_back) == [old_copy(put_back)]
    assert remarks(put_back._replace(renewed_ms=NOW_MS)) == []
    assert remarks(put_back._replace(revoked=True)) == []
    both = put_back._replace(earlier_ms=NOW_MS - 3)
    assert remarks(both) == [old_copy(both), earlier_certificate(both)]
    assert [remark.at_ms for remark in remarks(both)] == [NOW_MS - 5, NOW_MS - 3]
    stopped = put_back._replace(revoked=True, recalled_ms=NOW_MS - 1)
    assert remarks(stopped) == [recalled(stopped)]


def test_terminals_in_trouble_come_first() -> None:
    rows = [
        FINE._replace(name="a"),
        FINE._replace(name="b", revoked=True),
        SILENT._replace(name="z"),
        SILENT._replace(name="c"),
        FINE._replace(name="d", held=3),
    ]
    rows.sort(key=lambda row: by_urgency(row, NOW_MS))
    assert [row.name for row in rows] == ["c", "z", "d", "a", "b"]


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (-5_000, "0 s"),
        (59_999, "59 s"),
        (60_000, "1 min"),
        (3_599_999, "59 min"),
        (3_600_000, "1 h"),
        (47 * 3_600_000, "47 h"),
        (48 * 3_600_000, "2 days"),
    ],
)
def test_span_in_its_largest_unit(duration_ms: int, text: str) -> None:
    assert span(duration_ms) == text


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_entry_has_a_word(kind: Kind) -> None:
    assert kind_word(kind)


@pytest.mark.parametrize(
    ("each", "text"),
    [
        (["hub"], "hub"),
        (["hub", "Bus 1"], "hub and Bus 1"),
        (["hub", "Bus 1", "Bus 2"], "hub, Bus 1 and Bus 2"),
        (["hub", "Bus 1", "Bus 2", "Bus 3", "Bus 4"], "hub, Bus 1, Bus 2 and 2 more"),
    ],
)
def test_names_in_a_sentence_are_few(each: list[str], text: str) -> None:
    assert words.names(each) == text


@pytest.mark.parametrize(
    ("error_ms", "said"),
    [
        (0, ""),
        (59_999, ""),
        (3 * 3_600_000, "± 3 h"),
        (40 * 86_400_000, "± 40 days"),
        (100 * 365 * 86_400_000, "clock not checked"),
        (MAX_CLOCK_ERROR_MS, "clock not checked"),
    ],
)
def test_how_far_a_time_may_be_wrong(error_ms: int, said: str) -> None:
    """A terminal whose clock nothing has confirmed says a century, which says nothing to a person."""
    assert words.doubt(error_ms) == said


def test_of_whom_something_is_missing() -> None:
    rows = [
        WaitingRow(name, replica, 1, 2, 0, "", proven=True, own=name == "hub")
        for name, replica in (
            ("hub", "01"),
            ("Bus 1", "02"),
            ("Bus 1", "03"),
            ("Bus 2", "04"),
            ("Bus 3", "05"),
        )
    ]
    assert words.authors(rows[:1]) == "the hub itself"
    assert words.authors(rows[:3]) == "the hub itself and Bus 1"
    assert words.authors(rows) == "the hub itself, Bus 1, Bus 2 and 1 more"
