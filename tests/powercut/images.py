"""Crash images as files, and their databases opened quickly."""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from crdt.store.connection import DriverConnection, Layout
from crdt.store.driver import choose_driver
from tests.powercut.disk import Image

_FILE_END: Final = b"\0"


class Broken(Exception):
    """A crash image that is not what a power cut may leave."""


def fingerprint(image: Image) -> bytes:
    """A hash of all files: equal for equal images."""
    sha = hashlib.sha256()
    for name in sorted(image):
        sha.update(b"%b%b%d%b" % (name.encode(), _FILE_END, len(image[name]), _FILE_END))
        sha.update(image[name])
    return sha.digest()


Row = tuple[Any, ...]


class Opened:
    """An image's database, as the driver gives it."""

    def __init__(self, raw: DriverConnection) -> None:
        self._raw = raw

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """The rows of a query."""
        found: list[Row] = self._raw.execute(sql, values).fetchall()
        return found

    def value(self, sql: str) -> Any:
        """The first value of the first row; None when there is none."""
        rows = self.rows(sql)
        return rows[0][0] if rows else None

    def has_table(self, name: str) -> bool:
        """Whether the database has this table yet."""
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE name = ?", name))


class Slot:
    """A directory that holds one image at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def put(self, image: Image) -> None:
        """Hold this image and nothing else."""
        for entry in self.directory.iterdir():
            if entry.name not in image:
                entry.unlink()
        for name, contents in image.items():
            path = self.directory / name
            path.write_bytes(contents)
            path.chmod(0o600)

    def remove(self) -> None:
        """Delete the directory."""
        shutil.rmtree(self.directory)


class Opener:
    """Opens one database after the other, as SQLite finds it after the power cut: the log is recovered.

    What `Database.open` does besides (create tables, start threads) takes ten times as long; a share of the
    images is opened with that.
    """

    def __init__(self) -> None:
        self._driver: ModuleType = choose_driver()

    @contextlib.contextmanager
    def open(self, path: Path, key: bytes, layout: Layout) -> Iterator[Opened]:
        """The database at `path`. Raises Broken when it does not open or a page is damaged."""
        try:
            raw: DriverConnection = self._driver.connect(str(path), isolation_level=None)
            try:
                raw.execute("PRAGMA cipher_log_level = NONE")
                raw.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
                raw.execute(f"PRAGMA cipher_page_size = {layout.page_bytes}")
                raw.execute("PRAGMA locking_mode = EXCLUSIVE")  # the log's index in this process's memory
                yield Opened(raw)
            finally:
                raw.close()
        except self._driver.Error as err:
            raise Broken(f"the database does not read: {err}") from err
