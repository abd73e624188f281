"""Signed documents: what is not money. And the one of them that says what a ride costs, `fleet`.

A document travels as its saved bytes in a `SignedDocument`, because small ones are smaller so than by
automerge's own sync, and because nothing is believed that is not signed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from automerge.core import ROOT, Document, ObjType, ScalarType, Transaction, extract

from crdt.automerge_guard import Bounds, contained, open_saved
from crdt.certificate import AuthorCertificate, Role
from crdt.errors import (
    BadSignature,
    ForeignFleet,
    Malformed,
    MisuseError,
    NotPermitted,
    TooLarge,
    UnknownAuthor,
    Unsupported,
)
from crdt.facts import ID_BYTES, FleetId, ReplicaId, text_fits
from crdt.fleet import SETTING_NAMES, FleetSettings, SettingRefused
from crdt.signing import DOCUMENT_TAG, SIGNATURE_BYTES, SigningKey, verify
from crdt.wire import Reader, Writer

VERSION: Final = 1
FLEET_DOCUMENT: Final = "fleet"  # fares and rules; the hub's
TERMINAL_DOCUMENT: Final = "terminal"  # of one terminal; the hub's and the terminal's own
MAX_DOCUMENT_BYTES: Final = 512 * 1024
MAX_SIGNED_DOCUMENT_BYTES: Final = MAX_DOCUMENT_BYTES + 256
MAX_VERSION: Final = 2**63 - 2
MAX_CHANGES: Final = 1000  # of a document's history; loading slows down past a few thousand
MAX_OPERATIONS: Final = 100_000  # of all changes together; a tenth of a second to load
ACTOR: Final = b"farebox-fleet-v1"  # one stable actor, because every further one makes loading slower
_BOUNDS: Final = Bounds(MAX_DOCUMENT_BYTES, frozenset({ACTOR}), MAX_CHANGES, MAX_OPERATIONS)

_SCALARS: Final = {int: ScalarType.Int, str: ScalarType.Str, bool: ScalarType.Boolean}


@dataclass(frozen=True, slots=True)
class FleetDocument:
    """The automerge document `fleet`: setting names and values. Immutable; a change makes a new one."""

    body: bytes  # as automerge saves it
    settings: FleetSettings

    @classmethod
    def new(cls, settings: FleetSettings | None = None) -> Self:
        """A document without history that holds `settings`, or the default ones."""
        settings = settings or FleetSettings()
        with contained():
            document = Document(ACTOR)
            with document.transaction() as transaction:
                for name in SETTING_NAMES:
                    _put(transaction, name, getattr(settings, name))
            return cls(document.save(), settings)

    @classmethod
    def load(cls, body: bytes) -> Self:
        """The document in `body`. Raises TooLarge, Malformed, or SettingRefused (a Malformed).

        A setting that is missing has its default; names that are not settings are left alone.
        """
        document, _ = open_saved(body, _BOUNDS)
        with contained():
            values = extract(document)
        if not isinstance(values, dict):
            raise Malformed("the document is not a map")
        return cls(body, _settings({name: values[name] for name in SETTING_NAMES if name in values}))

    def with_changes(self, changes: Mapping[str, object]) -> Self:
        """The document with some settings changed. Raises SettingRefused when one makes no sense.

        Only the hub may do this: the history continues under the one actor, or is dropped when it grows
        long.
        """
        settings = _settings({**_values(self.settings), **changes})
        document, size = open_saved(self.body, _BOUNDS)
        history_is_long = size.changes >= MAX_CHANGES or size.operations >= MAX_OPERATIONS // 2
        if history_is_long or len(self.body) > MAX_DOCUMENT_BYTES // 2:
            return self.new(settings)
        with contained():
            document.set_actor(ACTOR)
            with document.transaction() as transaction:
                for name in changes:
                    _put(transaction, name, getattr(settings, name))
            return replace(self, body=document.save(), settings=settings)


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A document as it travels. Believe it only after `verify`."""

    fleet: FleetId
    name: str  # FLEET_DOCUMENT, TERMINAL_DOCUMENT or revocations.REVOKED_DOCUMENT
    version: int  # grows with every change, and the larger replaces the smaller; of "terminal" see there
    body: bytes
    signer: ReplicaId
    signature: bytes = b""

    @classmethod
    def seal(cls, key: SigningKey, fleet: FleetId, name: str, version: int, body: bytes) -> Self:
        """A signed document. Raises MisuseError when a part does not fit."""
        if len(body) > MAX_DOCUMENT_BYTES or not text_fits(name) or not 1 <= version <= MAX_VERSION:
            raise MisuseError("a document needs a short name, a version from 1 and at most 512 KiB")
        unsigned = cls(fleet, name, version, body, key.replica)
        return replace(unsigned, signature=key.sign(DOCUMENT_TAG + unsigned._signed()))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """The document in `raw`, not yet verified. Raises Malformed, TooLarge or Unsupported."""
        if len(raw) > MAX_SIGNED_DOCUMENT_BYTES:
            raise TooLarge(f"a signed document has at most {MAX_SIGNED_DOCUMENT_BYTES} bytes")
        reader = Reader(raw)
        if reader.uint(1) != VERSION:
            raise Unsupported("the document has a version this program does not know")
        fleet, signer, name = FleetId(reader.raw(ID_BYTES)), ReplicaId(reader.raw(ID_BYTES)), reader.text()
        version = reader.varint(1, MAX_VERSION)
        body = reader.raw(reader.varint(0, MAX_DOCUMENT_BYTES))
        document = cls(fleet, name, version, body, signer, reader.raw(SIGNATURE_BYTES))
        reader.end()
        return document

    def encode(self) -> bytes:
        """The document's bytes, at most MAX_SIGNED_DOCUMENT_BYTES."""
        return self._signed() + self.signature

    def verify(self, certificate: AuthorCertificate) -> Self:
        """This document, when the author with this (verified) certificate signed it, and may.

        A hub may sign any; a terminal its own "terminal". Raises ForeignFleet, UnknownAuthor, NotPermitted or
        BadSignature.
        """
        if self.fleet != certificate.fleet:
            raise ForeignFleet("the document belongs to another fleet")
        if self.signer != certificate.replica:
            raise UnknownAuthor("the document is not from whom it should be")
        if certificate.role is not Role.HUB and self.name != TERMINAL_DOCUMENT:
            raise NotPermitted("only a hub may write the fleet's documents")
        if not verify(certificate.public_key, self.signature, DOCUMENT_TAG + self._signed()):
            raise BadSignature("the document is not signed by its author")
        return self

    def _signed(self) -> bytes:
        writer = Writer().uint(VERSION, 1).raw(self.fleet).raw(self.signer).text(self.name)
        return writer.varint(self.version).varint(len(self.body)).raw(self.body).done()


def _values(settings: FleetSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in SETTING_NAMES}


def _settings(values: Mapping[str, object]) -> FleetSettings:
    unknown = sorted(set(values) - set(SETTING_NAMES))
    if unknown:
        raise SettingRefused(f"there is no fleet setting {unknown[0]!r}")
    return FleetSettings(**values)  # type: ignore[arg-type]  # FleetSettings checks every value's type itself


def _put(transaction: Transaction, name: str, value: object) -> None:
    if isinstance(value, Mapping):
        place = transaction.put_object(ROOT, name, ObjType.Map)
        for key in sorted(value):
            transaction.put(place, key, ScalarType.Int, value[key])
    elif isinstance(value, int | str):
        transaction.put(ROOT, name, _SCALARS[type(value)], value)
