"""Signed settings documents on disk: the newest version of each, of `terminal` the last that was put."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from crdt.documents import TERMINAL_DOCUMENT, SignedDocument
from crdt.revocations import NONE_REVOKED, REVOKED_DOCUMENT, Revocations
from crdt.store.schema import DOCUMENT
from crdt.store.sql import replacing
from crdt.store.statement import Statement

_GET = Statement(select(DOCUMENT.c.raw).where(DOCUMENT.c.name == bindparam("name")))
_VERSION = Statement(select(DOCUMENT.c.version).where(DOCUMENT.c.name == bindparam("name")))
_PUT = replacing(DOCUMENT)


def get_document(connection: Connection, name: str) -> SignedDocument | None:
    """The document kept under this name."""
    raw = _GET.value(connection, name=name)
    return None if raw is None else SignedDocument.decode(raw)


def document_version(connection: Connection, name: str) -> int:
    """Of the document kept under this name; 0 for none."""
    return int(_VERSION.value(connection, name=name) or 0)


def put_document(connection: Connection, document: SignedDocument) -> bool:
    """Keep a verified document if it is newer than the one kept, or another `terminal`; whether it was."""
    version = _VERSION.value(connection, name=document.name)
    if version is not None and not _replaces(document, version):
        return False
    _PUT.run(connection, [(document.name, document.version, document.encode())])
    return True


def revocations(connection: Connection, given: SignedDocument | None = None) -> Revocations:
    """Who is revoked, by the list kept here; or by one given, if it is newer."""
    document = get_document(connection, REVOKED_DOCUMENT)
    if given is not None and (document is None or given.version > document.version):
        document = given
    return NONE_REVOKED if document is None else Revocations.decode(document.body)


def _replaces(document: SignedDocument, version: int) -> bool:
    if document.name == TERMINAL_DOCUMENT:
        return document.version != version  # its versions tell documents apart, and do not grow
    return document.version > version
