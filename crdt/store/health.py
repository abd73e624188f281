"""Whether the database may still be used. After a failed write nothing is tried again."""

from __future__ import annotations

from crdt.errors import StoreFailed
from crdt.store.connection import is_broken


class Health:
    """Remembers the first failure of the disk or the file; from then on everything is refused.

    A commit that failed may or may not be on disk, and after a failed fsync the kernel may have dropped what
    it could not write. Only opening the file again tells what is there.
    """

    def __init__(self) -> None:
        self.failed = False  # or closed: everything is refused
        self._failure = "The ledger is closed."

    def refusal(self) -> StoreFailed:
        """What to answer after a failure."""
        return StoreFailed(self._failure)

    def check(self) -> None:
        """Raise StoreFailed when the database failed before."""
        if self.failed:
            raise self.refusal()

    def fail(self, reason: str) -> StoreFailed:
        """Refuse everything from now on because of the disk or the file; the error to raise now."""
        return self.stop(
            f"The ledger stopped working: {reason}. Nothing more is written until the program is started "
            "again; check that the disk is healthy and has space."
        )

    def stop(self, sentence: str) -> StoreFailed:
        """Refuse everything from now on with this sentence, or with that of an earlier failure."""
        if not self.failed:
            self._failure = sentence
        self.failed = True
        return self.refusal()

    def close(self) -> None:
        """Refuse everything from now on because the database was closed."""
        self.failed = True

    def judge(self, err: BaseException) -> None:
        """Raise StoreFailed where `err` means that the disk or the file failed; for the others do nothing."""
        if is_broken(err):
            raise self.judged(err)

    def judged(self, err: BaseException) -> BaseException:
        """`err` itself, or StoreFailed where it means that the disk or the file failed."""
        if not is_broken(err):
            return err
        failure = self.fail(first_line(err))
        failure.__cause__ = err
        return failure


def first_line(err: BaseException) -> str:
    """The driver's own words; SQLAlchemy puts the statement and its values below them."""
    return (str(err).splitlines() or [type(err).__name__])[0]
