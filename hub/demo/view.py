"""Turns the state into what the page shows, word by word. Pure, so that every sentence can be tested."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .cast import EXPONENT, money
from .state import BusState, Held, Light, Power, Reading, State

assert EXPONENT == 2  # noqa: S101 - `money` and these texts show euros and cents

STEPS: Final = {
    "tap": "Tap a card on a bus.",
    "cut": "Cut that bus’s network.",
    "offline": "Tap on: it takes fares and holds them.",
    "agreed": "Restore the network and see every ledger agree.",
}

Json = dict[str, Any]


def snapshot(state: State) -> Json:
    """Everything the page draws, as JSON values; texts are ready to show."""
    return {
        "verdict": verdict(state),
        "now": state.log[0].text if state.log else "Everything is ready. Tap a card on a bus.",
        "steps": [{"text": text, "done": key in state.steps_done} for key, text in STEPS.items()],
        "cards": [_card(uid, name, state.hub) for uid, name in state.cards],
        "buses": [_bus(bus, state.hub) for bus in state.buses],
        "table": _table(state),
        "log": [{"at": entry.at, "text": entry.text} for entry in state.log],
    }


def verdict(state: State) -> Mapping[str, str]:
    """Whether the books balance, whether the ledgers agree, and if not, why that is as it should be."""
    readings = [
        reading for reading in (state.hub, *(bus.reading for bus in state.buses)) if reading is not None
    ]
    if not readings:
        return {"tone": "wait", "books": "Starting …", "agree": ""}
    if not all(reading.balanced for reading in readings):
        return {
            "tone": "bad",
            "books": "Books balance: no",
            "agree": "A ledger's deltas and balances differ.",
        }
    books = "Books balance: yes"
    if state.agree:
        return {"tone": "good", "books": books, "agree": "All four ledgers agree."}
    return {"tone": "apart", "books": books, "agree": " ".join(_apart(state))}


def _apart(state: State) -> Iterator[str]:
    told = False
    for bus in state.buses:
        if bus.power is not Power.ON:
            how = "off" if bus.power is Power.OFF else "starting"
            yield f"{bus.role.name} is {how}{_and_holds(bus.reading)}."
            told = True
        elif bus.cut:
            yield f"{bus.role.name} is cut off{_and_holds(bus.reading)}."
            told = True
    if not told:
        yield "The ledgers are catching up."


def _and_holds(reading: Reading | None) -> str:
    return f" and holds {entries(reading.held)}" if reading is not None and reading.held else ""


def entries(count: int) -> str:
    """1 -> "1 entry", 3 -> "3 entries"."""
    return "1 entry" if count == 1 else f"{count} entries"


def _card(uid: str, name: str, hub: Reading | None) -> Json:
    known = hub is not None and uid in hub.balances
    balance = money(hub.balances[uid]) if hub is not None and known else "new"
    return {"uid": uid, "name": name, "detail": " ".join((uid[:2], uid[2:8], uid[8:])), "balance": balance}


def _bus(bus: BusState, hub: Reading | None) -> Json:
    state, more = _standing(bus, hub)
    off = bus.power is not Power.ON
    return {
        "key": bus.role.key,
        "name": bus.role.name,
        "door": bus.role.door,
        "route": bus.role.route,
        "fare": money(bus.role.fare_minor),
        "power": bus.power,
        "network": "cut" if bus.cut else "on",
        "light": Light.OFF if off else bus.display.light,
        "main": {Power.OFF: "Off", Power.STARTING: "Starting …"}.get(bus.power, bus.display.main),
        "more": "" if off else bus.display.more,
        "state": state,
        "stateMore": more,
    }


def _standing(bus: BusState, hub: Reading | None) -> tuple[str, str]:
    """The line below a bus: how it stands, and what that means."""
    held = bus.reading.held if bus.reading is not None else 0
    if bus.power is Power.OFF:
        return (
            "Killed.",
            f"{entries(held).capitalize()} held on its disk." if held else "Its ledger is on its disk.",
        )
    if bus.power is Power.STARTING:
        return "Starting.", "It reads its ledger from the disk."
    if bus.cut:
        return (
            "No network.",
            f"{entries(held).capitalize()} held, still taking fares." if held else "Still taking fares.",
        )
    if held:
        return "Connected.", f"Handing over {entries(held)}."
    if bus.reading is not None and hub is not None and bus.reading.digest != hub.digest:
        return "Connected.", "Hearing what is new."
    return "Connected.", "Nothing held, up to date."


def _table(state: State) -> Json:
    readings = {bus.role.key: bus.reading for bus in state.buses}
    columns = [{"name": "Hub", "detail": "depot"}]
    columns += [{"name": bus.role.name, "detail": _column_detail(bus)} for bus in state.buses]
    cards = [
        {
            "name": name,
            "cells": [_hub_cell(uid, state.hub), *(_bus_cell(uid, bus, state.hub) for bus in state.buses)],
        }
        for uid, name in state.cards
    ]
    return {"columns": columns, "cards": cards, "facts": _facts(state.hub, list(readings.values()))}


def _column_detail(bus: BusState) -> str:
    if bus.power is not Power.ON:
        return "off" if bus.power is Power.OFF else "starting"
    return "cut off" if bus.cut else "connected"


def _hub_cell(uid: str, hub: Reading | None) -> Json:
    if hub is None:
        return {"text": "…", "notes": [], "state": "off"}
    if uid not in hub.balances:
        return {"text": "–", "notes": ["not met"], "state": "same"}
    return {"text": money(hub.balances[uid]), "notes": [], "state": "same"}


def _bus_cell(uid: str, bus: BusState, hub: Reading | None) -> Json:
    """A bus's balance of a card; where it is not the hub's, the notes say what explains that."""
    if bus.reading is None:
        return {"text": "…", "notes": [], "state": "off"}
    mine = bus.reading.balances.get(uid)
    theirs = hub.balances.get(uid) if hub is not None else None
    if mine is None:
        apart = theirs is not None
        return {"text": "–", "notes": ["not met"], "state": "apart" if apart else "same"}
    notes = list(_why(mine, theirs, bus.reading.held_of.get(uid)))
    state = "off" if bus.power is Power.OFF else "apart" if notes else "same"
    return {"text": money(mine), "notes": notes, "state": state}


def _why(mine: int, theirs: int | None, held: Held | None) -> Iterator[str]:
    """What makes up the difference between a bus's balance of a card and the hub's."""
    held_minor = 0
    if held is not None:
        held_minor = held.sum_minor
        if held.opening_minor:
            yield f"{money(held.opening_minor)} to start with"
        yield f"{_signed(held.sum_minor)} held here"
    # What the two have in common, an opening that both gave included, drops out.
    if theirs is not None and (unheard := theirs - mine + held_minor):
        yield f"{_signed(unheard)} not heard yet"


def _signed(amount_minor: int) -> str:
    return money(amount_minor) if amount_minor < 0 else f"+{money(amount_minor)}"


def _facts(hub: Reading | None, buses: Sequence[Reading | None]) -> list[Json]:
    all_readings = [hub, *buses]
    return [
        {"name": "Held entries", "cells": [_plain("–"), *map(_held_cell, buses)]},
        {"name": "Entries", "cells": [_written(hub, "in all"), *(_written(bus, "its own") for bus in buses)]},
        {"name": "Digest", "cells": [_digest_cell(reading, hub) for reading in all_readings]},
    ]


def _held_cell(reading: Reading | None) -> Json:
    if reading is None:
        return _plain("…")
    return {"text": str(reading.held), "notes": [], "state": "apart" if reading.held else "same"}


def _written(reading: Reading | None, whose: str) -> Json:
    return _plain("…") if reading is None else {**_plain(str(reading.written)), "notes": [whose]}


def _plain(text: str) -> Json:
    return {"text": text, "notes": [], "state": "same"}


def _digest_cell(reading: Reading | None, hub: Reading | None) -> Json:
    if reading is None:
        return _plain("…")
    apart = hub is not None and reading.digest != hub.digest
    return {
        "text": reading.digest[:8],
        "digest": reading.digest,
        "notes": [],
        "state": "apart" if apart else "same",
    }
