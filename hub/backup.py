"""`farebox-hub backup`: a copy of the ledger while the hub runs, handed to who asks on the control socket.

The hub makes it, in its state directory, because only it has the key; who asks writes it where it belongs.
The file of marks is not in it: by that file a hub that is put back from a backup notices it. Also where no
chain had moved since, for the copy has a nonce of its own, which no marks know.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from crdt.errors import StoreFailed
from crdt.store import witness
from crdt.store.backup import back_up
from crdt.store.marks import NONCE_BYTES
from hub.keyfile import read_key
from hub.ledger_place import ledger_place
from hub.settings import HubSettings

PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Copy:
    """A finished copy. It has no name any more, and is gone when `file` is closed."""

    file: BinaryIO
    size_bytes: int

    async def pieces(self) -> AsyncIterator[bytes]:
        """Its bytes."""
        while piece := await asyncio.to_thread(self.file.read, PIECE_BYTES):
            yield piece


class Backups:
    """Makes copies, one at a time."""

    def __init__(self, settings: HubSettings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._one_at_a_time = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def copy(self) -> AsyncIterator[Copy]:
        """A copy of the ledger as it is now. Raises StoreFailed, for instance for a full disk."""
        async with self._one_at_a_time:
            file = await asyncio.to_thread(self._make)
            try:
                yield Copy(file, os.fstat(file.fileno()).st_size)
            finally:
                file.close()

    def _make(self) -> BinaryIO:
        if self._settings.store_url:
            raise StoreFailed(
                f"The ledger lies in {ledger_place(self._settings)}: back it up with the server's own tools, "
                "such as pg_dump or mariadb-dump, and keep the key file elsewhere."
            )
        place: Path = self._settings.state_directory / "backup.partial"
        place.unlink(missing_ok=True)  # of a hub that was stopped meanwhile
        key = read_key(self._settings.key_file, self._environment)
        nonce = os.urandom(NONCE_BYTES)
        back_up(
            self._settings.database, key, place, mark=lambda connection: witness.tell_apart(connection, nonce)
        )
        try:
            return place.open("rb")
        finally:
            place.unlink()
