"""The automerge document `terminal`: where one terminal is and what people noted about it.

The hub writes it, and so does the technician on the bus, both maybe offline; each merges what the other
sends. Two editors of different fields keep both, of the same field one wins, the same one on both sides.

    root map: terminal (its id in hex), epoch (integer), and for each field a text "EDITION:TEXT"

The edition of what is typed is one more than the largest in the document: it counts as automerge's own
clock does, and goes on counting where the history ends. A long history is dropped for a new document, the
next epoch; whoever still has edits on an old epoch puts those onto the new one that are of a later edition.
So are two histories joined that automerge cannot merge, because one writer's storage was restored.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Final, Self

from automerge.core import ROOT, Document, ScalarType

from crdt.automerge_guard import Bounds, contained, open_saved
from crdt.documents import (
    MAX_CHANGES,
    MAX_DOCUMENT_BYTES,
    MAX_VERSION,
    TERMINAL_DOCUMENT,
    SignedDocument,
)
from crdt.errors import Malformed
from crdt.facts import MAX_TEXT_BYTES, TerminalId, text_fits
from crdt.fleet import SettingRefused

HUB_EDITS: Final = b"farebox-term-hub"  # the automerge actors: the hub,
TERMINAL_EDITS: Final = b"farebox-term-bus"  # the technician at the terminal,
_EPOCH_BEGINS: Final = b"farebox-term-new"  # and whoever begins an epoch: alike for the same contents
MAX_NOTES_BYTES: Final = 1000
MAX_EDITION: Final = 10**15 - 1
MAX_EPOCH: Final = 2**53
_LONG_BYTES: Final = 64 * 1024  # of a saved document that is to be dropped for a new one
# Two sides that were apart bring a whole history each. An edit puts at most five fields.
_BOUNDS: Final = Bounds(
    MAX_DOCUMENT_BYTES // 2,
    frozenset({HUB_EDITS, TERMINAL_EDITS, _EPOCH_BEGINS}),
    changes=2 * MAX_CHANGES + 2,
    operations=10 * MAX_CHANGES + 20,
)
_VALUE: Final = re.compile(r"(0|[1-9][0-9]{0,14}):(.*)", re.DOTALL | re.ASCII)


@dataclass(frozen=True, slots=True)
class TerminalSettings:
    """What is known of a terminal besides its name. Raises SettingRefused for a text that does not fit."""

    route: str = ""  # that it is on when nobody chooses another
    door: str = ""
    vehicle: str = ""  # terminals of one vehicle look for each other
    reader: str = ""  # how the reader is attached
    notes: str = ""  # for people; may have several lines

    def __post_init__(self) -> None:
        """Check every text."""
        for name in TERMINAL_SETTING_NAMES:
            _check(name, getattr(self, name))


TERMINAL_SETTING_NAMES: Final = tuple(setting.name for setting in fields(TerminalSettings))


@dataclass(frozen=True, slots=True)
class TerminalDocument:
    """One terminal's document. Immutable; an edit or a merge makes another."""

    terminal: TerminalId
    body: bytes  # as automerge saves it
    version: int  # made from the document's heads: equal documents have equal versions, others have others
    epoch: int
    editions: Mapping[str, tuple[int, str]]  # of each field its edition and text

    def text(self, name: str) -> str:
        """One text."""
        return self.editions[name][1]

    @property
    def settings(self) -> TerminalSettings:
        """The texts."""
        return TerminalSettings(**{name: text for name, (_, text) in self.editions.items()})

    @classmethod
    def new(cls, terminal: TerminalId) -> Self:
        """The empty document of a terminal: the same bytes wherever it is made."""
        return cls._begun(terminal, 0, dict.fromkeys(TERMINAL_SETTING_NAMES, (0, "")))

    @classmethod
    def load(cls, body: bytes, terminal: TerminalId) -> Self:
        """The document of `terminal` in `body`. Raises TooLarge or Malformed."""
        document, _ = open_saved(body, _BOUNDS)
        return cls._of(document, body, terminal)

    @classmethod
    def of(cls, signed: SignedDocument, terminal: TerminalId) -> Self:
        """The document of `terminal` in a verified SignedDocument. Raises TooLarge or Malformed."""
        document = cls.load(signed.body, terminal)
        if (signed.name, signed.version) != (TERMINAL_DOCUMENT, document.version):
            raise Malformed("the document's name or number is not that of its contents")
        return document

    def edited(self, actor: bytes, changes: Mapping[str, str]) -> Self:
        """The document with some fields changed by HUB_EDITS or TERMINAL_EDITS.

        Raises SettingRefused for a field there is not, or a text that does not fit.
        """
        for name, text in changes.items():
            if name not in TERMINAL_SETTING_NAMES:
                raise SettingRefused(f"a terminal has no setting {name!r}")
            _check(name, text)
        changed = {name: text for name, text in changes.items() if text != self.editions[name][1]}
        edition = max(edition for edition, _ in self.editions.values())
        return self._with(
            actor,
            {
                name: (min(edition + count, MAX_EDITION), text)
                for count, (name, text) in enumerate(changed.items(), 1)
            },
        )

    def merged(self, other: Self, actor: bytes) -> Self:
        """Both documents of one terminal together; `actor`: who merges. The same fields on both sides.

        Raises Malformed when the other is another terminal's.
        """
        if other.terminal != self.terminal:
            raise Malformed("the document is another terminal's")
        if other.version == self.version:
            return self
        if other.epoch == self.epoch:
            try:
                return self._united(other)
            except Malformed:  # the histories deny each other: a writer's storage was restored
                return self._joined(other, max(self.epoch, other.epoch) + 1)
        older, newer = sorted((self, other), key=lambda document: document.epoch)
        later = {name: value for name, value in older.editions.items() if value > newer.editions[name]}
        return newer._with(actor, later)

    def _united(self, other: Self) -> Self:
        document, _ = open_saved(self.body, _BOUNDS)
        with contained():
            document.merge(Document.load(other.body))
            united = self._of(document, document.save(), self.terminal)
            history_is_long = len(document.get_changes([])) > MAX_CHANGES
        return united._rebased() if history_is_long or len(united.body) > _LONG_BYTES else united

    def _joined(self, other: Self, epoch: int) -> Self:
        latest = {name: max(value, other.editions[name]) for name, value in self.editions.items()}
        return self._begun(self.terminal, epoch, latest)

    def _rebased(self) -> Self:
        return self._joined(self, self.epoch + 1)

    def _with(self, actor: bytes, values: Mapping[str, tuple[int, str]]) -> Self:
        if not values:
            return self
        document, size = open_saved(self.body, _BOUNDS)
        if size.changes >= MAX_CHANGES or len(self.body) > _LONG_BYTES:
            return self._rebased()._with(actor, values)
        with contained():
            document.set_actor(actor)
            _put(document, values)
            return self._of(document, document.save(), self.terminal)

    @classmethod
    def _begun(cls, terminal: TerminalId, epoch: int, editions: Mapping[str, tuple[int, str]]) -> Self:
        with contained():
            document = Document(_EPOCH_BEGINS)
            with document.transaction() as transaction:
                transaction.put(ROOT, "terminal", ScalarType.Str, terminal.hex())
                transaction.put(ROOT, "epoch", ScalarType.Int, min(epoch, MAX_EPOCH))
                for name, (edition, text) in editions.items():
                    transaction.put(ROOT, name, ScalarType.Str, f"{edition}:{text}")
            return cls._of(document, document.save(), terminal)

    @classmethod
    def _of(cls, document: Document, body: bytes, terminal: TerminalId) -> Self:
        with contained():
            values = {name: document.get(ROOT, name) for name in document.keys(ROOT)}
            heads = b"".join(sorted(document.get_heads()))
        plain = {name: value[0] for name, value in values.items() if value is not None}
        if plain.pop("terminal", None) != (ScalarType.Str, terminal.hex()):
            raise Malformed("the document is another terminal's")
        epoch = _whole(plain.pop("epoch", None))
        if set(plain) != set(TERMINAL_SETTING_NAMES):
            raise Malformed("the document has not the fields of a terminal")
        editions = {name: _edition(name, plain[name]) for name in TERMINAL_SETTING_NAMES}
        version = 1 + int.from_bytes(sha256(heads).digest()[:8], "big") % MAX_VERSION
        return cls(terminal, body, version, epoch, editions)


def _put(document: Document, values: Mapping[str, tuple[int, str]]) -> None:
    with document.transaction() as transaction:
        for name, (edition, text) in values.items():
            transaction.put(ROOT, name, ScalarType.Str, f"{edition}:{text}")


def _check(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise SettingRefused(f"a terminal's {name} must be text")
    if name != "notes":
        if not text_fits(text):
            raise SettingRefused(f"a terminal's {name} must be at most {MAX_TEXT_BYTES} bytes on one line")
        return
    if not all(map(text_fits, _pieces(text))) or len(text.encode()) > MAX_NOTES_BYTES:
        raise SettingRefused(f"a terminal's notes must be at most {MAX_NOTES_BYTES} bytes of plain text")


def _pieces(text: str) -> list[str]:
    """The text in parts short enough for text_fits, its line ends left out."""
    plain = text.replace("\n", "")
    return [plain[at : at + MAX_TEXT_BYTES // 4] for at in range(0, len(plain), MAX_TEXT_BYTES // 4)]


def _whole(value: object) -> int:
    match value:
        case (ScalarType.Int, int(number)) if 0 <= number <= MAX_EPOCH:
            return number
    raise Malformed("the document's epoch is not a whole number")


def _edition(name: str, value: object) -> tuple[int, str]:
    match value:
        case (ScalarType.Str, str(written)) if found := _VALUE.fullmatch(written):
            _check(name, found[2])
            return int(found[1]), found[2]
    raise Malformed(f"the document's {name} is not a text with its edition")
