"""What a database server's errors mean: for the connection, and for a person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sqlalchemy.exc import DBAPIError

# By SQLSTATE of PostgreSQL, and by number of MariaDB and MySQL.
_READ_ONLY: Final = frozenset({"25006", "1290", "1792", "1836"})
_FULL: Final = frozenset({"53100", "1021", "1114"})
_LOCKED: Final = frozenset({"55P03", "1205"})
_ENDED_EARLY: Final = frozenset({"57014", "1969", "3024"})

_ADVICE: Final[Mapping[frozenset[str], str]] = {
    _READ_ONLY: "It takes no writes: a standby, or a server that was set so. Check where the address leads.",
    _FULL: "Free some space on the disk of the database server.",
    _LOCKED: "Another hub has been writing for long. If it is out of reach, the server ends that soon.",
    _ENDED_EARLY: "Where statement_timeout (max_statement_time, max_execution_time) is set on the server, "
    "raise it for the hub's user.",
}


def is_lost(err: BaseException) -> bool:
    """Whether an error means that the connection is gone, or leads to a server that takes no writes.

    An address may lead to another server after a take-over; a connection goes on leading to the same one.
    """
    return isinstance(err, DBAPIError) and (err.connection_invalidated or _code_of(err) in _READ_ONLY)


def advice_on(err: BaseException) -> str:
    """What an operator should do about it, as a sentence after others; "" where that is not known."""
    code = _code_of(err)
    return next((f" {advice}" for codes, advice in _ADVICE.items() if code in codes), "")


def without_values(err: DBAPIError) -> DBAPIError:
    """The error without the values that the server puts in: they may be keys and cards, and go to a log."""
    words = re.sub(r"(?<= entry )'.*'(?= for key )", "", reason_of(err))  # MariaDB's and MySQL's
    if err.orig is not None:
        err.orig.args = (words,)
    err.args = (words,)
    return err


def reason_of(err: BaseException) -> str:
    """The first line of the driver's own words, without SQLAlchemy's."""
    words = err.orig if isinstance(err, DBAPIError) and err.orig is not None else err
    if not isinstance(words, DBAPIError) and len(words.args) > 1:  # PyMySQL: a number, then the words
        return str(words.args[1])
    return (str(words).strip().splitlines() or [type(words).__name__])[0]


def _code_of(err: BaseException) -> str:
    """SQLSTATE, or the number of PyMySQL's; "" for another error."""
    words = err.orig if isinstance(err, DBAPIError) else None
    if words is None:
        return ""
    number = next(iter(words.args), None)  # PyMySQL's SQLSTATE is HY000 for most
    return str(number if isinstance(number, int) else getattr(words, "sqlstate", ""))
