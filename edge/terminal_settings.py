"""What technician and hub set of this terminal: route, door, vehicle, reader, notes.

A field that the terminal's document says nothing of is as the file has it. All take effect at once, but for
the reader, which is opened at the start.
"""

import logging
from collections.abc import Mapping
from typing import Any

from crdt.fleet import SettingRefused
from crdt.terminal_document import TERMINAL_SETTING_NAMES
from edge.errors import SettingNotTaken
from edge.settings import Settings
from edge.terminal import Terminal
from hardware.devices import parse_reader_spec
from hardware.errors import BadSpec

log = logging.getLogger(__name__)


class OwnSettings:
    """The document as people see it and change it. `say` never waits; `change` waits for the disk."""

    def __init__(self, settings: Settings, terminal: Terminal) -> None:
        """Made at the start: the reader is chosen here."""
        self._terminal = terminal
        self._file = {
            "route": settings.terminal_route,
            "door": settings.terminal_door,
            "vehicle": settings.terminal_vehicle,
            "reader": settings.reader_device,
            "notes": "",
        }
        self.reader_device = self._next_reader()
        """The reader that this start uses."""
        if self.reader_device != terminal.text("reader", self.reader_device):
            log.warning(
                "the reader that is set cannot be used; the settings file's is: %s", self.reader_device
            )

    def in_use(self) -> dict[str, str]:
        """Each field as it has effect now."""
        now = {name: self._terminal.text(name, self._file[name]) for name in TERMINAL_SETTING_NAMES}
        return now | {"reader": self.reader_device}

    def say(self) -> dict[str, Any]:
        """By field: what the document says ("" for nothing), what the file says, what has effect now and what
        after a new start."""
        now = self.in_use()
        return {
            "paired": self._terminal.enrolment is not None,
            "document": {name: self._terminal.text(name, "") for name in TERMINAL_SETTING_NAMES},
            "file": self._file,
            "in_use": now,
            "after_start": now | {"reader": self._next_reader()},
        }

    def change(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Set fields, "" for what the file says; then like `say`.

        Raises SettingNotTaken, and nothing has changed.
        """
        for name in changes:
            if name not in TERMINAL_SETTING_NAMES:
                raise SettingNotTaken(
                    f"Nothing was changed: there is no {name[:40]!r}. What can be set is"
                    f" {', '.join(TERMINAL_SETTING_NAMES)}; all else is in the settings file."
                )
        if changes.get("reader"):
            _check_reader(changes["reader"])
        try:
            taken = self._terminal.edit(changes)
        except SettingRefused as error:
            raise SettingNotTaken(f"Nothing was changed: {error}.") from error
        if not taken:
            raise SettingNotTaken(
                "Nothing was changed: this terminal is not paired yet, and what is set belongs to its fleet."
                " Pair it (farebox-tech pair CODE), or write into its settings file."
            )
        return self.say()

    def _next_reader(self) -> str:
        """What is set, unless it names none: a bus needs a reader, and the hub cannot check what it sets."""
        wanted = self._terminal.text("reader", self._file["reader"])
        try:
            parse_reader_spec(wanted)
        except BadSpec:
            return self._file["reader"]
        return wanted


def _check_reader(spec: object) -> None:
    try:
        parse_reader_spec(spec if isinstance(spec, str) else "")
    except BadSpec as error:
        raise SettingNotTaken(f"Nothing was changed: {error}") from error
