"""The demo's running commentary: one sentence for everything that happens, for somebody who sees it first."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from .cast import BusRole, money
from .console import Shown
from .state import Entry, Power, Reading, State
from .view import entries

KEPT: Final = 12


class Story:
    """Collects the sentences, newest first. `clock` gives local time as HH:MM:SS."""

    def __init__(self, clock: Callable[[], str]) -> None:
        self._clock = clock
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._apart = False

    @property
    def entries(self) -> Sequence[Entry]:
        return tuple(self._entries)

    def tell(self, text: str) -> None:
        """Adds a sentence."""
        self._entries.appendleft(Entry(self._clock(), text))

    def follow(self, state: State) -> None:
        """Notices when ledgers that were cut off or switched off have come to agree again; says so once."""
        if any(bus.cut or bus.power is not Power.ON for bus in state.buses):
            self._apart = True
        elif state.agree and self._apart:
            self.tell("All four ledgers agree again: every tap is in each of them, once.")
            self._apart = False


def tapped(bus: BusRole, name: str, shown: Shown | None, cut: bool) -> str:
    """What a tap did."""
    if shown is None:
        return f"{bus.name} was killed before it answered {name}. No green light, so no promise was made."
    if not shown.accepted:
        return f"{bus.name} refused {name}: {shown.display.main.lower()}. Nothing was charged."
    paid = f"{bus.name} took {money(bus.fare_minor)} from {name}"
    where = ", on its own disk: it has no network." if cut else "."
    return f"{paid}{where}"


def cut(bus: BusRole, running: bool) -> str:
    """What cutting a network means. `running`: whether the bus's terminal is."""
    if not running:
        return f"{bus.name} is cut off as well. Start it again: it takes fares from its own ledger."
    return f"{bus.name} is cut off. It goes on taking fares from its own ledger. Tap a card on it."


def restored(bus: BusRole, reading: Reading | None, running: bool) -> str:
    """What restoring one means. `running`: whether the bus's terminal is."""
    if not running:
        held = f" hands over {entries(reading.held)}, and" if reading is not None and reading.held else ""
        return f"{bus.name} has its network back. Start it again: it{held} hears what is new."
    if reading is None or not reading.held:
        return f"{bus.name} has its network back, and hears what is new."
    return f"{bus.name} has its network back, and hands over {entries(reading.held)}."


def killed(bus: BusRole, reading: Reading | None) -> str:
    """What kill -9 means."""
    held = (
        f" {entries(reading.held).capitalize()} held on its disk."
        if reading is not None and reading.held
        else ""
    )
    return f"{bus.name}’s terminal was killed (kill −9), in the middle of whatever it did.{held}"


def started(bus: BusRole, reading: Reading | None) -> str:
    """What a terminal finds when it starts again."""
    if reading is not None and reading.held:
        return f"{bus.name} is up again, with {_all(reading.held)} it held."
    return f"{bus.name} is up again. Its ledger is as it left it."


def _all(count: int) -> str:
    return "the entry" if count == 1 else f"all {count} entries"
