"""What the page says of every situation: whether the books balance, who agrees, and why a balance differs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from hub.demo.cast import BUSES
from hub.demo.console import READY
from hub.demo.state import BusState, Display, Held, Light, Power, Reading, State
from hub.demo.view import snapshot, verdict

ADA, EMIL = "04A1", "04EE"
CALM = Reading("aa" * 32, 0, 4, True, {ADA: 2000})


def bus(number: int = 0, reading: Reading | None = CALM, **changes: Any) -> BusState:
    return replace(BusState(BUSES[number], Power.ON, False, READY, reading), **changes)


def state(first: BusState, hub: Reading | None = CALM) -> State:
    return State(hub, [first, bus(1), bus(2)], [(ADA, "Ada"), (EMIL, "Emil")], [])


def cell(shown: Mapping[str, Any], row: int, column: int) -> tuple[str, str]:
    found = shown["table"]["cards"][row]["cells"][column]
    return found["text"], ", ".join(found["notes"])


def test_equal_ledgers_agree() -> None:
    assert verdict(state(bus())) == {
        "tone": "good",
        "books": "Books balance: yes",
        "agree": "All four ledgers agree.",
    }


def test_a_bus_that_is_cut_off_and_holds_taps_is_apart_and_the_books_still_balance() -> None:
    holding = replace(CALM, digest="bb" * 32, held=3)
    said = verdict(state(bus(reading=holding, cut=True)))
    assert said["books"] == "Books balance: yes"
    assert said["agree"] == "Bus 1 is cut off and holds 3 entries."


def test_a_bus_that_is_off_does_not_agree_although_its_last_digest_did() -> None:
    assert verdict(state(bus(power=Power.OFF)))["agree"] == "Bus 1 is off."


def test_ledgers_that_are_connected_and_differ_are_catching_up() -> None:
    assert (
        verdict(state(bus(reading=replace(CALM, digest="bb" * 32))))["agree"]
        == "The ledgers are catching up."
    )


@pytest.mark.parametrize("where", ["hub", "bus"])
def test_books_that_do_not_balance_are_said_so(where: str) -> None:
    broken = replace(CALM, balanced=False)
    shown = state(bus(), hub=broken) if where == "hub" else state(bus(reading=broken))
    assert verdict(shown)["books"] == "Books balance: no"


def test_a_balance_that_differs_says_what_is_held_here() -> None:
    holding = replace(CALM, digest="bb" * 32, held=1, balances={ADA: 1750}, held_of={ADA: Held(-250, 0)})
    assert cell(snapshot(state(bus(reading=holding, cut=True))), 0, 1) == ("17.50", "−2.50 held here")


def test_a_balance_that_differs_says_what_was_not_heard_yet() -> None:
    hub = replace(CALM, digest="bb" * 32, balances={ADA: 1580})
    assert cell(snapshot(state(bus(cut=True), hub)), 0, 1) == ("20.00", "−4.20 not heard yet")


def test_a_card_that_two_buses_met_first_is_explained_without_a_second_opening_balance() -> None:
    """Invariant 11, as a newcomer reads it: 5.00 to start with, once, and two rides."""
    hub = replace(CALM, digest="bb" * 32, balances={EMIL: 250})
    here = replace(CALM, digest="cc" * 32, held=2, balances={EMIL: 320}, held_of={EMIL: Held(-180, 500)})
    text, note = cell(snapshot(state(bus(reading=here, cut=True), hub)), 1, 1)
    assert text == "3.20"
    assert note == "5.00 to start with, −1.80 held here, −2.50 not heard yet"


def test_a_card_nobody_has_met_has_no_balance() -> None:
    assert cell(snapshot(state(bus())), 1, 0) == ("–", "not met")


def test_a_bus_shows_what_its_terminal_shows() -> None:
    green = Display(Light.ACCEPTED, "2.50 EUR paid", "17.50 EUR left")
    shown = snapshot(state(bus(display=green)))["buses"][0]
    assert (shown["light"], shown["main"], shown["more"]) == ("accepted", "2.50 EUR paid", "17.50 EUR left")


def test_a_bus_that_is_off_shows_no_light() -> None:
    shown = snapshot(state(bus(power=Power.OFF)))["buses"][0]
    assert (shown["light"], shown["main"]) == ("off", "Off")


def test_before_anything_has_answered_there_is_something_to_show() -> None:
    nothing = State(None, [bus(n, None, power=Power.STARTING) for n in range(3)], [(ADA, "Ada")], [])
    assert snapshot(nothing)["verdict"]["books"] == "Starting …"
