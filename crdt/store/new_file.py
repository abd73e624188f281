"""A file for a person, as a backup or a courier file: it has its name when all of it is on the disk."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EAGAIN, EEXIST
from io import FileIO
from pathlib import Path
from typing import Any

from crdt.store.directory import sync_directory


class NewFile(FileIO):
    """Unbuffered, so that closing it has nothing left to write."""

    def write(self, data: Any, /) -> int:
        """All of these bytes."""
        left = memoryview(data)
        while left:
            left = left[super().write(left) :]
        return len(memoryview(data))


@contextmanager
def new_file(name: Path) -> Iterator[NewFile]:
    """A file that appears as `name` when the block ends well; else nothing is left of it.

    For its owner alone: who rode where is in it. Raises OSError: FileExistsError where something has the
    name, which is not touched, and BlockingIOError where another process is writing such a file.
    """
    refuse_taken(name)
    part = name.with_name(f".{name.name}.part")
    with _begun(part) as file:
        try:
            yield file
            os.fsync(file.fileno())
            refuse_taken(name)
            part.replace(name)
        except BaseException:  # Ctrl-C too leaves nothing
            with suppress(OSError):  # of a stick that was pulled
                part.unlink(missing_ok=True)
            raise
        with suppress(OSError):  # what is mounted over a network may know no such thing; the file is there
            sync_directory(name.absolute().parent)


def refuse_taken(name: Path) -> None:
    """Raise FileExistsError where something has the name, and other OSErrors where nobody can say."""
    with suppress(FileNotFoundError):
        name.lstat()
        raise FileExistsError(EEXIST, os.strerror(EEXIST), name)


def _begun(part: Path) -> NewFile:
    """Made by nobody else, and claimed until it is closed."""
    if os.path.lexists(part):
        _discard(part)
    try:
        file = NewFile(part, "xb", opener=lambda path, flags: os.open(path, flags, 0o600))
    except FileExistsError as error:
        raise _busy(part) from error
    try:
        _claim(file.fileno(), part)
    except BaseException:  # whatever it was: nobody else has it to close
        file.close()
        raise
    return file


def _discard(part: Path) -> None:
    """What a process has left that was killed."""
    with suppress(FileNotFoundError):
        descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            _claim(descriptor, part)
            part.unlink()
        finally:
            os.close(descriptor)


def _claim(descriptor: int, part: Path) -> None:
    """Whoever ended first would give the name to another's half."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), part.lstat()):
            return
    raise _busy(part)  # another process has named or removed it since


def _busy(part: Path) -> BlockingIOError:
    return BlockingIOError(EAGAIN, os.strerror(EAGAIN), part)
