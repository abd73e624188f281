"""What the hub's commands have in common: long work shows a bar to a person, and writes nothing elsewhere."""

import io
import sys

import pytest

from hub.cli_forks import what_forks_mean
from hub.cli_ledger import what_waiting_means
from hub.cli_text import Bar, size_text


class Screen(io.StringIO):
    """A standard error that somebody looks at."""

    def isatty(self) -> bool:
        return True


def test_a_bar_shows_how_far_it_is_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue: courier files "with progress"."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = Bar("importing")
    bar.show(2_000_000, 4_000_000)
    bar.show(4_000_000, 4_000_000)
    bar.end()
    half, whole, gone = screen.getvalue().split("\r")[1:]
    assert half.count("#") * 2 == whole.count("#") > 0
    assert " 50 % of 4.0 MB" in half
    assert "100 % of 4.0 MB" in whole
    assert gone == "\x1b[K"


def test_where_the_end_is_not_known_it_says_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    Bar("exporting").show(1_500_000, None)
    assert "exporting 1.5 MB" in screen.getvalue()
    assert "%" not in screen.getvalue()


def test_a_pipe_gets_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("importing")
    bar.show(1, 1)
    bar.end()
    assert capsys.readouterr().err == ""


def test_what_is_missing_says_what_it_means_for_money_and_days() -> None:
    """A top-up of a hub that was put back must not be booked again too early; a mere word holds no day up."""
    taps = {"own": False, "proven": True, "claimed_seq": 0}
    own, word, more = {**taps, "own": True}, {**taps, "proven": False}, {**taps, "claimed_seq": 9}
    assert what_waiting_means([taps]) == [
        "No balance counts these yet. They come with any terminal or courier file that has them."
    ]
    assert "before you book one of them again" in what_waiting_means([taps, own])[-1]
    assert "no day waits for it" in what_waiting_means([taps, word])[-1]
    assert "no day waits for it" in what_waiting_means([taps, more])[-1]


def test_what_does_not_count_says_what_it_means_for_money_and_what_to_do() -> None:
    """A thief's taps are accepted by nobody, and a fork heals by itself where the terminal still comes."""
    fork = {"revoked": False, "replaced": False, "own": False, "resolution": ""}
    late, own = {**fork, "revoked": True}, {**fork, "own": True}
    assert what_forks_mean([{**fork, "resolution": "adopted"}]) == []
    told = " ".join(what_forks_mean([fork]))
    assert "No balance counts the open ones" in told
    assert "writes them again by itself" in told
    assert "terminals accept" not in told
    assert "farebox-hub terminals accept NAME" in " ".join(what_forks_mean([fork, late]))
    assert "Compare with the receipts" in " ".join(what_forks_mean([own]))


def test_a_small_file_has_a_size_too() -> None:
    """A courier file of one day is no "0.0 MB"."""
    assert (size_text(1_672), size_text(31_040_000)) == ("1.7 kB", "31.0 MB")
