"""High-water marks: a small file beside the database that tells when the database was put back.

A ledger whose storage is an older copy of itself would number new facts like old ones that somebody else
already holds. So a fresh random nonce goes into the database and into this file at every start, and the file
remembers how far chains had come. The file is never part of a backup; where the two do not fit together, the
database is not the one that was here last.

    "farebox marks v1\\n" | nonce 16 | former nonce 16 | count u32 | of each: replica 16, seq u64, hash 32
    | SHA-256 of all before

There are no secrets in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import tempfile
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Self

from crdt.errors import StoreFailed
from crdt.facts import ReplicaId
from crdt.frontier import Frontier, Head
from crdt.store.blocks import NO_HEAD
from crdt.store.directory import sync_directory

NONCE_BYTES: Final = 16

_log = logging.getLogger(__name__)
_TAG: Final = b"farebox marks v1\n"
_TOP: Final = struct.Struct(">16s16sI")
_ROW: Final = struct.Struct(">16sQ32s")
_CHECKSUM_BYTES: Final = 32
_NONE: Final = bytes(NONCE_BYTES)


class Marks:
    """The marks of one ledger. Made by `open`; any thread may use it.

    At a start, in this order: `check_start`, `save`, `nonce` into the database, `started`. So a power cut in
    between is told from a database that was put back. A mark is set only after what it marks is durable in
    the database: it may lag, and never leads.
    """

    def __init__(self, data: bytes, put: Callable[[bytes], None], entropy: Callable[[int], bytes]) -> None:
        """Marks kept in a place of the caller's: `data` was in it (b"" for nothing), `put` replaces it all.

        Raises ValueError when the data is damaged.
        """
        known, heads = _decode(data) if data else ((), {})
        self.nonce = entropy(NONCE_BYTES)  # of this start
        self.fresh = not data  # whether there were none: of a ledger, or a process of it, that is new
        self._put = put
        self._known = known  # the nonces that the database may have
        self._former = known[0] if known else _NONE  # goes with the new one until the database has that
        self._heads = dict(heads)
        self._saved = b""
        self._mutex = threading.Lock()
        self._saving = threading.Lock()

    @classmethod
    def open(cls, path: Path, entropy: Callable[[int], bytes] = os.urandom) -> Self:
        """Read the file at `path`; writes nothing yet. A damaged one counts as absent, and the log says so.

        Raises StoreFailed when the disk does not give it.
        """
        put = partial(_replace, path)
        try:
            data = path.read_bytes() if path.exists() else b""
        except OSError as err:
            raise StoreFailed(_unusable(path, err)) from err
        try:
            return cls(data, put, entropy)
        except ValueError:
            damaged = cls(b"", put, entropy)
            damaged.fresh = False
            _log.error(  # noqa: TRY400 - a sentence for people; where it was read is of no use
                "The file %s is damaged. It tells when the ledger was put back from an old copy, so now the"
                " ledger counts as put back, and gets a new identity. No money is lost.",
                path,
            )
            return damaged

    @property
    def heads(self) -> dict[ReplicaId, Head]:
        """How far each chain had come."""
        with self._mutex:
            return dict(self._heads)

    @property
    def known(self) -> tuple[bytes, ...]:
        """The nonces that the database may have, the newer first."""
        return tuple(self._known)

    def head(self, replica: ReplicaId) -> Head | None:
        """How far one chain had come; None where there is no mark of it."""
        with self._mutex:
            return self._heads.get(replica)

    def check_start(
        self, database_nonce: bytes | None, heads: Frontier, of: Collection[ReplicaId] | None = None
    ) -> bool:
        """Whether the database is not the one that was here last. None: it never had a nonce, it is new.

        `heads`: the database's. `of`: the replicas to look at; None for every one that has a mark.
        """
        marks = self.heads
        for replica in marks if of is None else of:
            mark, head = marks.get(replica, NO_HEAD), heads.get(replica, NO_HEAD)
            if mark.seq > head.seq or (mark.seq == head.seq and mark.hash != head.hash):
                return True
        if database_nonce is None:
            return False
        if database_nonce not in self._known:
            return True
        self._former = database_nonce
        return False

    def advance(self, heads: Frontier) -> None:
        """These are durable in the database now. In memory until `save`; a mark never goes back."""
        with self._mutex:
            for replica, head in heads.items():
                if head.seq >= self._heads.get(replica, NO_HEAD).seq:
                    self._heads[replica] = head

    def started(self) -> None:
        """The database has this start's nonce, durably: from now on no other one fits. Waits for the disk."""
        with self._mutex:
            self._known = (self.nonce,)
            self._former = self.nonce
        self.save()

    def save(self) -> None:
        """Write what has changed, all or nothing, durable on return. Raises StoreFailed."""
        with self._saving:
            with self._mutex:
                data = _encode(self.nonce, self._former, self._heads)
            if data != self._saved:
                self._put(data)
                self._saved = data


def _encode(nonce: bytes, former: bytes, heads: Frontier) -> bytes:
    rows = (_ROW.pack(replica, *heads[replica]) for replica in sorted(heads))
    body = _TAG + _TOP.pack(nonce, former, len(heads)) + b"".join(rows)
    return body + hashlib.sha256(body).digest()


def _decode(data: bytes) -> tuple[Sequence[bytes], dict[ReplicaId, Head]]:
    """The nonces that the database may have, the newer first, and the marks. Raises ValueError."""
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    start = len(_TAG) + _TOP.size
    if len(body) < start or body[: len(_TAG)] != _TAG or hashlib.sha256(body).digest() != checksum:
        raise ValueError("damaged")
    nonce, former, count = _TOP.unpack_from(body, len(_TAG))
    if len(body) != start + count * _ROW.size:
        raise ValueError("damaged")
    rows = _ROW.iter_unpack(body[start:])
    return (nonce, former), {ReplicaId(replica): Head(seq, hash_) for replica, seq, hash_ in rows}


def _replace(path: Path, data: bytes) -> None:
    """Put `data` in the file's place, so that a power cut leaves the old or the new content."""
    try:
        _write_and_rename(path, data)
        sync_directory(path.parent)
    except OSError as err:
        raise StoreFailed(_unusable(path, err)) from err


def _write_and_rename(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _unusable(path: Path, error: OSError) -> str:
    return (
        f"The file {path} cannot be used ({error.strerror or error}): without it nobody notices when the"
        " ledger is put back from an old copy. Check that the disk is healthy, has space, and takes writes."
    )
