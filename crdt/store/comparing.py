"""That the hub has to compare with what it has copied: how often it was asked to, and how far it has come.

Whoever writes what is to be compared asks for it in the same transaction, and knows what came. It may end
before it has answered, or never learn that the transaction was written. So requests are numbered for ever, in
the database; and where nobody goes on, a process that cannot account for one compares everything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select

from crdt.store.hub_schema import HUB
from crdt.store.recording import Change
from crdt.store.statement import Statement

_ASK: Final = Statement(HUB.update().values(asked=HUB.c.asked + 1))
_STEP: Final = Statement(HUB.update().values(compared=HUB.c.compared + 1))
_ANSWER: Final = Statement(HUB.update().values(answered=bindparam("upto")))
_REQUESTS: Final = Statement(select(HUB.c.asked, HUB.c.answered, HUB.c.compared))


class Requests(NamedTuple):
    """How many there were."""

    asked: int
    answered: int  # the first so many of them
    steps: int  # towards the next answer, ever

    @property
    def open(self) -> bool:
        """Whether one is not answered."""
        return self.asked != self.answered


def ask(connection: Connection) -> int:
    """Ask for it, with what this transaction writes; the request's number, from 1."""
    _ASK.run(connection)
    return requests(connection).asked


def asking(connection: Connection, change: Change) -> Change:
    """The change; one that makes comparing necessary has asked for it."""
    if change.again or change.gone or change.evidence:
        return replace(change, asked=ask(connection))
    return change


def requests(connection: Connection) -> Requests:
    """How many there were until now."""
    return Requests._make(_REQUESTS.row(connection) or (0, 0, 0))


def answer(connection: Connection, upto: int) -> None:
    """All that the first `upto` were about is compared."""
    _ANSWER.run(connection, upto=upto)


def note_step(connection: Connection) -> None:
    """Some of what the next one is about is: other processes see that somebody goes on."""
    _STEP.run(connection)


class Accounted:
    """Of which requests a process has looked, or is about to look, at what they are about."""

    def __init__(self) -> None:
        self.upto = 0
        """All up to this one."""
        self._own: set[int] = set()  # beyond it

    def take(self, number: int) -> None:
        """This one too: the process has made it."""
        self._own.add(number)
        self.take_all(self.upto)

    def take_all(self, upto: int) -> None:
        """All up to this one: they are answered, or everything is compared."""
        self.upto = max(self.upto, upto)
        while self.upto + 1 in self._own:
            self.upto += 1
        self._own = {number for number in self._own if number > self.upto}
