"""How often somebody may ask, and what a person sees while something takes long."""

import io

from edge.pace import MAX_ASKERS, Pace
from edge.progress import Progress


def test_a_burst_is_taken_and_then_so_many_a_second() -> None:
    """Invariant 8: bounded for each asker, and one asker does not use up another's."""
    now = [0.0]
    pace = Pace(3, 2.0, lambda: now[0])
    assert [pace.admits("a") for _ in range(5)] == [True, True, True, False, False]
    assert pace.admits("b")
    now[0] = 1.0
    assert [pace.admits("a") for _ in range(3)] == [True, True, False]
    now[0] = 100.0
    assert [pace.admits("a") for _ in range(4)] == [True, True, True, False], "it is never more than a burst"


def test_it_remembers_a_bounded_number_of_askers() -> None:
    pace = Pace(1, 0.0, lambda: 0.0)
    assert pace.admits("first")
    assert not pace.admits("first")
    for number in range(MAX_ASKERS):
        assert pace.admits(number)
    assert pace.admits("first"), "who is forgotten starts anew"


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_a_progress_bar_is_for_terminals_only() -> None:
    """Long work shows a progress bar; a log file gets none."""
    screen, file = Screen(), io.StringIO()
    for out in (screen, file):
        with Progress("exporting", 2_000, "taps", out) as progress:
            progress.at(1_000)
            progress.at(2_000)
    assert file.getvalue() == ""
    lines = screen.getvalue().split("\r")
    assert [line.split("]")[1].strip() for line in lines[1:]] == [
        "0 %  0 of 2,000 taps",
        "50 %  1,000 of 2,000 taps",
        "100 %  2,000 of 2,000 taps",
    ]


def test_nothing_to_do_is_no_division_by_zero() -> None:
    screen = Screen()
    with Progress("importing", 0, "bytes", screen) as progress:
        progress.at(0)
    assert "0 %" in screen.getvalue()
