"""What operators see and change of a terminal's document: route, door, vehicle, reader, notes."""

from collections.abc import Mapping
from dataclasses import dataclass

from crdt.facts import text_fits
from crdt.fleet import SettingRefused
from crdt.terminal_document import TERMINAL_SETTING_NAMES
from hub.errors import RequestRefused
from hub.events import EventBus, Topic
from hub.registry import Registry, Terminal
from hub.terminal_documents import Kept, TerminalDocuments

REPORTED = ("route", "door", "vehicle")  # what a terminal says with each sync that it uses


@dataclass(frozen=True, slots=True)
class SettingsView:
    """A terminal's settings.

    By field: `values`, what is set ("" for nothing); `fetched`, what the terminal is known to have of that;
    `used`, what it last said that it uses.
    """

    terminal: str  # id, hex
    name: str
    values: Mapping[str, str]
    waiting: tuple[str, ...]  # the fields that the terminal has not fetched yet
    fetched: Mapping[str, str]
    used: Mapping[str, str]


class SettingsDesk:
    """Sees and changes them. The coroutines never block the event loop; they raise RequestRefused."""

    def __init__(self, documents: TerminalDocuments, registry: Registry, bus: EventBus) -> None:
        self._documents = documents
        self._registry = registry
        self._bus = bus

    async def show(self, name_or_id: str) -> SettingsView:
        """The settings of a terminal, by its name or id."""
        terminal = await self._registry.find(name_or_id)
        return _view(terminal, await self._documents.kept(terminal.terminal))

    async def change(self, name_or_id: str, changes: Mapping[str, str]) -> SettingsView:
        """Set some of them; all or none. The terminal hears of it when it next syncs."""
        terminal = await self._registry.find(name_or_id)
        for name in changes:
            if name not in TERMINAL_SETTING_NAMES:
                raise RequestRefused(
                    "setting",
                    f"Nothing was changed: there is no {name[:40]!r}. "
                    f"What can be set of a terminal is {', '.join(TERMINAL_SETTING_NAMES)}.",
                )
        try:
            kept = await self._documents.edit(terminal.terminal, changes)
        except SettingRefused as error:
            raise RequestRefused("setting", f"Nothing was changed: {error}.") from error
        self._bus.publish(Topic.TERMINALS, (terminal.terminal.hex(),))
        return _view(terminal, kept)


def _view(terminal: Terminal, kept: Kept) -> SettingsView:
    said = {name: terminal.status.get(name) for name in REPORTED}
    used = {name: text for name, text in said.items() if isinstance(text, str) and text_fits(text)}
    fetched = {name: kept.fetched_texts.get(name, "") for name in kept.texts}
    return SettingsView(terminal.terminal.hex(), terminal.name, kept.texts, kept.waiting, fetched, used)
