"""What the demo understands of a terminal's output; checked against the terminal's own words and lights."""

import io

import pytest

from crdt.facts import Draft, Kind
from crdt.fleet import FleetSettings
from edge.decide import Accepted, Note, Reason, Refused
from edge.words import HOLD_STILL, NOT_PAIRED, words_for
from hardware.feedback import ConsoleFeedback, Signal
from hub.demo.console import Shown, read_line
from hub.demo.state import Light

FARES = FleetSettings()


def printed(signal: Signal, text: str) -> Shown | None:
    """What the demo makes of what the console prints."""
    stream = io.StringIO()
    ConsoleFeedback(stream).show(signal, text)
    return read_line(stream.getvalue().rstrip("\n"))


@pytest.mark.parametrize("notes", [frozenset(), frozenset({Note.LOW_BALANCE, Note.REGISTERED})])
@pytest.mark.parametrize(("fare", "left"), [(250, 1750), (0, 0), (420, -170), (100_005, 3)])
def test_an_accepted_tap_is_read_with_what_it_paid(notes: frozenset[Note], fare: int, left: int) -> None:
    """The demo's "acknowledged" is exactly this line."""
    verdict = Accepted((Draft(Kind.FARE, -fare),), fare, left, notes)
    shown = printed(*words_for(verdict, FARES))
    assert shown is not None
    assert shown.accepted
    assert shown.is_verdict
    assert shown.fare_minor == fare


@pytest.mark.parametrize("reason", list(Reason))
def test_a_refusal_is_read_and_pays_nothing(reason: Reason) -> None:
    shown = printed(*words_for(Refused(reason, 250, 100), FARES))
    assert shown is not None
    assert shown.is_verdict
    assert not shown.accepted
    assert shown.fare_minor is None


@pytest.mark.parametrize(
    ("signal", "text", "light"),
    [
        (Signal.READY, "", Light.READY),
        (Signal.OUT_OF_SERVICE, NOT_PAIRED, Light.OFF),
        (Signal.TRY_AGAIN, HOLD_STILL, Light.READY),
    ],
)
def test_what_is_no_verdict_is_told_apart(signal: Signal, text: str, light: Light) -> None:
    shown = printed(signal, text)
    assert shown is not None
    assert not shown.is_verdict
    assert shown.display.light is light


@pytest.mark.parametrize(
    "line", ["", "tap {}", "[ GREEN ] acc", "[ GREEN ]", "GREEN accepted: 2.50 EUR paid"]
)
def test_other_lines_show_nothing(line: str) -> None:
    assert read_line(line) is None


def test_a_green_light_that_names_no_fare_is_still_an_acceptance() -> None:
    shown = read_line("[ GREEN ] accepted: welcome")
    assert shown is not None
    assert shown.accepted
    assert shown.fare_minor is None
