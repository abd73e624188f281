"""Light and sound: one contract for every Feedback, and what each signal looks and sounds like."""

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from gpiozero.pins.mock import MockFactory, MockPWMPin

from hardware.errors import BadSpec, FeedbackMissing
from hardware.feedback import ConsoleFeedback, Feedback, RecordingFeedback, Signal, open_feedback
from hardware.feedback_gpio import GpioFeedback, Pins, open_gpio_feedback
from hardware.patterns import BEEP_HZ, DARK, LOW_HZ, PATTERNS, Lamp, PatternPlayer, Step

VERDICTS = (Signal.ACCEPTED, Signal.ACCEPTED_CONCESSION, Signal.REFUSED, Signal.TRY_AGAIN)


@dataclass
class Made:
    feedback: Feedback
    shows: Callable[[], object]
    """What can be perceived; changes when something else is shown."""


@pytest.fixture
def factory() -> Iterator[MockFactory]:
    made = MockFactory(pin_class=MockPWMPin)
    yield made
    made.close()


@pytest.fixture(params=["console", "gpio", "fake"])
def made(request: pytest.FixtureRequest, factory: MockFactory) -> Iterator[Made]:
    match request.param:
        case "console":
            stream = io.StringIO()
            built = Made(ConsoleFeedback(stream), stream.getvalue)
        case "gpio":
            gpio = GpioFeedback(Pins(), pin_factory=factory, pace=0.0)
            built = Made(gpio, lambda: [factory.pin(number).state for number in (17, 27, 22, 18)])
        case _:
            fake = RecordingFeedback()
            built = Made(fake, lambda: list(fake.shown))
    yield built
    built.feedback.close()


@pytest.mark.parametrize("signal", Signal)
def test_every_signal_can_be_shown_with_and_without_text(made: Made, signal: Signal) -> None:
    made.feedback.show(signal)
    made.feedback.show(signal, "2.50 € · balance 7.50 €")


def test_a_later_signal_takes_the_place_of_an_earlier_one(made: Made) -> None:
    for signal in (*Signal, *Signal):
        made.feedback.show(signal)


def test_any_thread_may_show(made: Made) -> None:
    threads = [threading.Thread(target=made.feedback.show, args=(signal, "x")) for signal in Signal]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_closing_twice_is_fine_and_nothing_is_shown_afterwards(made: Made) -> None:
    made.feedback.show(Signal.ACCEPTED)
    made.feedback.close()
    shown = made.shows()
    made.feedback.close()
    made.feedback.show(Signal.REFUSED, "too late")
    assert made.shows() == shown


def _tones(signal: Signal) -> list[int]:
    return [step.tone_hz for step in PATTERNS[signal] if step.tone_hz]


def _lamps(signal: Signal) -> Lamp:
    lamps = DARK
    for step in PATTERNS[signal][:-1]:
        lamps |= step.lamps
    return lamps


def test_signals_are_those_that_people_know() -> None:
    """Green and one beep, two for a concession, red and a low tone; "try again" is neither green nor red."""
    assert (_lamps(Signal.ACCEPTED), _tones(Signal.ACCEPTED)) == (Lamp.GREEN, [BEEP_HZ])
    assert (_lamps(Signal.ACCEPTED_CONCESSION), _tones(Signal.ACCEPTED_CONCESSION)) == (
        Lamp.GREEN,
        [BEEP_HZ] * 2,
    )
    assert (_lamps(Signal.REFUSED), _tones(Signal.REFUSED)) == (Lamp.RED, [LOW_HZ])
    assert _lamps(Signal.TRY_AGAIN) == Lamp.AMBER
    assert LOW_HZ not in _tones(Signal.TRY_AGAIN)
    assert PATTERNS[Signal.READY] == (Step(Lamp.AMBER),)
    assert PATTERNS[Signal.OUT_OF_SERVICE] == (Step(DARK),)


@pytest.mark.parametrize("signal", VERDICTS)
def test_a_verdict_ends_in_ready_within_two_seconds(signal: Signal) -> None:
    *shown, last = PATTERNS[signal]
    assert last == PATTERNS[Signal.READY][0]
    assert all(step.hold_s > 0 for step in shown)
    assert sum(step.hold_s for step in shown) <= 2


class Recorder:
    """Takes steps, and lets a test wait for one."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._came = threading.Condition()

    def __call__(self, step: Step) -> None:
        with self._came:
            self.steps.append(step)
            self._came.notify_all()

    def wait_for(self, step: Step) -> None:
        with self._came:
            assert self._came.wait_for(lambda: step in self.steps, 10)


@pytest.mark.parametrize("signal", Signal)
def test_the_player_plays_every_step_in_order(signal: Signal) -> None:
    recorder = Recorder()
    player = PatternPlayer(recorder, pace=0.0)
    player.play(PATTERNS[signal])
    recorder.wait_for(PATTERNS[signal][-1])
    player.close()
    assert tuple(recorder.steps) == PATTERNS[signal]


def test_the_player_drops_a_pattern_for_a_newer_one() -> None:
    """A tap while the last verdict is still lit: the old one is not played to its end first."""
    recorder = Recorder()
    player = PatternPlayer(recorder)
    for_ever = Step(Lamp.RED, hold_s=1e6)
    player.play((for_ever, Step(Lamp.AMBER)))
    recorder.wait_for(for_ever)
    player.play((Step(Lamp.GREEN),))
    recorder.wait_for(Step(Lamp.GREEN))
    player.close()
    assert recorder.steps == [for_ever, Step(Lamp.GREEN)]


def test_playing_holds_nobody_up() -> None:
    """Patterns never stand in the tap's way, even when the pins do: `play` returns while a step is stuck."""
    stuck, release = threading.Event(), threading.Event()

    def apply(_: Step) -> None:
        stuck.set()
        release.wait(10)

    player = PatternPlayer(apply)
    player.play(PATTERNS[Signal.READY])
    assert stuck.wait(10)
    player.play(PATTERNS[Signal.ACCEPTED])
    assert not release.is_set()
    release.set()
    player.close()


def test_the_pins_follow_the_steps(factory: MockFactory) -> None:
    feedback = GpioFeedback(Pins(green=5, red=6, amber=13, buzzer=19), pin_factory=factory)
    green, red, amber, buzzer = (factory.pin(number) for number in (5, 6, 13, 19))
    feedback._apply(Step(Lamp.GREEN, BEEP_HZ))
    assert [bool(pin.state) for pin in (green, red, amber, buzzer)] == [True, False, False, True]
    assert buzzer.frequency == BEEP_HZ
    feedback._apply(Step(Lamp.RED, LOW_HZ))
    assert [bool(pin.state) for pin in (green, red, amber, buzzer)] == [False, True, False, True]
    assert buzzer.frequency == LOW_HZ
    feedback._apply(Step(Lamp.AMBER))
    assert [bool(pin.state) for pin in (green, red, amber, buzzer)] == [False, False, True, False]
    feedback.close()


def test_the_console_shows_no_escape_sequences() -> None:
    stream = io.StringIO()
    ConsoleFeedback(stream).show(Signal.REFUSED, "Bad\x1b[2Jname\n")
    assert stream.getvalue() == "[  RED  ] refused: Bad?[2Jname?\n"


def test_feedback_by_name(factory: MockFactory) -> None:
    assert isinstance(open_feedback("console"), ConsoleFeedback)
    assert isinstance(open_feedback("none"), RecordingFeedback)
    feedback = open_gpio_feedback(["green=5", "buzzer=19"], factory)
    feedback.close()


@pytest.mark.parametrize(
    "spec",
    ["", "disco", "gpio,green", "gpio,green=28", "gpio,green=" + "1" * 5000, "gpio,blue=5", "console,red=1"],
)
def test_bad_names_say_what_is_expected(spec: str) -> None:
    with pytest.raises(BadSpec, match="expected"):
        open_feedback(spec)


def test_pins_that_cannot_be_used_are_a_sentence(factory: MockFactory) -> None:
    with pytest.raises(FeedbackMissing, match="set the feedback to console"):
        open_gpio_feedback(["green=17", "red=17"], factory)
    # The pins that were taken before it failed are free again.
    open_gpio_feedback([], factory).close()
