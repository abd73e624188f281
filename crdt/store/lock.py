"""One process on a ledger: a lock file beside it, held for as long as the ledger is open."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from crdt.errors import LedgerBusy, StoreFailed


class ProcessLock:
    """The kernel drops the lock with the process, however it ends; the file stays, empty."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, ledger: Path) -> Self:
        """Lock the ledger. Raises LedgerBusy when somebody else has it, StoreFailed without a file.

        Symbolic links are followed first: one file is one ledger, whatever it is called.
        """
        file = _resolved(ledger)
        path = file.with_name(file.name + ".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise StoreFailed(f"No lock file {path}: {err.strerror}. Check the directory.") from err
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            os.close(descriptor)
            raise LedgerBusy(
                f"The ledger {ledger} is in use by another process. Stop that one first "
                f"(fuser {path} names it); two programs on one ledger would write the same numbers twice."
            ) from err
        return cls(descriptor)

    def release(self) -> None:
        """Let go of the ledger."""
        os.close(self._descriptor)


def _resolved(ledger: Path) -> Path:
    try:
        return ledger.resolve()
    except (OSError, RuntimeError) as err:  # Python before 3.13 says RuntimeError to links in a circle
        raise StoreFailed(f"There is no telling which file {ledger} is: {err}. Check its links.") from err
