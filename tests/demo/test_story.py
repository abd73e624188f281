"""The running commentary: what it says, and that it says "agree again" only when there was a reason to."""

from dataclasses import replace

from hub.demo import story
from hub.demo.cast import BUSES
from hub.demo.console import READY, Shown
from hub.demo.state import BusState, Display, Light, Power, Reading, State

CALM = Reading("aa" * 32, 0, 4, True, {})
BEHIND = replace(CALM, digest="bb" * 32, held=2)


def state(first: BusState) -> State:
    others = [BusState(role, Power.ON, False, READY, CALM) for role in BUSES[1:]]
    return State(CALM, [first, *others], [], [])


def bus(reading: Reading = CALM, *, cut: bool = False, power: Power = Power.ON) -> BusState:
    return BusState(BUSES[0], power, cut, READY, reading)


def told(*states: State) -> list[str]:
    commentary = story.Story(lambda: "12:00:00")
    for one in states:
        commentary.follow(one)
    return [entry.text for entry in commentary.entries]


def test_agreement_is_told_once_after_a_bus_was_cut_off() -> None:
    cut, back, agreed = state(bus(BEHIND, cut=True)), state(bus(BEHIND)), state(bus())
    assert told(cut, back, agreed, agreed) == [
        "All four ledgers agree again: every tap is in each of them, once."
    ]


def test_agreement_is_not_told_while_a_bus_is_cut_off_or_off() -> None:
    assert told(state(bus(cut=True)), state(bus(power=Power.OFF))) == []


def test_an_online_tap_that_travels_is_no_news() -> None:
    assert told(state(bus()), state(bus(BEHIND)), state(bus())) == []


def test_a_tap_is_told_with_what_it_means() -> None:
    green = Shown(Display(Light.ACCEPTED, "2.50 EUR paid", "17.50 EUR left"), 250)
    red = Shown(Display(Light.REFUSED, "Balance too low", "0.50 EUR, fare 2.50 EUR"))
    assert story.tapped(BUSES[0], "Ada", green, cut=False) == "Bus 1 took 2.50 from Ada."
    assert "on its own disk: it has no network" in story.tapped(BUSES[0], "Ada", green, cut=True)
    assert story.tapped(BUSES[0], "Ada", red, cut=False).endswith("balance too low. Nothing was charged.")
    assert "no promise was made" in story.tapped(BUSES[0], "Ada", None, cut=False)


def test_a_terminal_that_comes_back_says_what_it_held() -> None:
    assert story.started(BUSES[0], BEHIND) == "Bus 1 is up again, with all 2 entries it held."
    assert story.restored(BUSES[0], BEHIND, running=True).endswith("and hands over 2 entries.")
    assert story.started(BUSES[0], CALM) == "Bus 1 is up again. Its ledger is as it left it."


def test_a_network_of_a_bus_that_is_off_hands_nothing_over_yet() -> None:
    """Its terminal has to be started first; the page must not say that it is done."""
    for reading, held in (
        (BEHIND, "it hands over 2 entries, and hears"),
        (CALM, "it hears"),
        (None, "it hears"),
    ):
        said = story.restored(BUSES[0], reading, running=False)
        assert said == f"Bus 1 has its network back. Start it again: {held} what is new."
    assert "goes on taking" not in story.cut(BUSES[0], running=False)
    assert "goes on taking" in story.cut(BUSES[0], running=True)
