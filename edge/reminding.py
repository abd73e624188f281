"""Reminds a hub that was put back from a backup of whom it had ended: by the list of revocations held here.

Nobody else may know that any more. So before anything else is said to a hub whose own list says less, it is
given this one, and until it has acknowledged that, what this terminal knows is not forgotten: it goes on
counting by it, and offers it again. The acknowledgement is the hub's list as it is then, which its answer
brings. That nothing was refused is none, nor need a refusal be of the list.

A hub that has looked at the list and will not have it decides, for else its later revocations would never
hold here. Its own list does then; of whom more counts by that is told, in the log and in the status.
"""

import logging
from typing import Final

from crdt.errors import RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import Refusal
from edge import revoked_list
from edge.delivery import Unheard
from edge.errors import AnswerRefused, HubRefused, HubTooSlow
from edge.exchange import Answer, refusal_in
from edge.revoked_list import Lost
from edge.run import Run

_FOR_NOW: Final = frozenset({RefusalCode.COME_AGAIN, RefusalCode.UNKNOWN_AUTHOR})
"""Refusals that say nothing against a list."""

log = logging.getLogger(__name__)


class Reminding:
    """What one run tells the hub of the list held here."""

    def __init__(self, run: Run, *, retry: bool) -> None:
        """`retry`: whether what the hub would not hear is said again; not at each tap, it may be long."""
        self._run = run
        self._retry = retry
        self._said: set[tuple[ReplicaId, int]] = set()  # to which hub, which version

    async def remind(self, answer: Answer) -> bool:
        """Tell the hub what its answer shows it to have lost; whether another list holds now, by which the
        answer is out of date.

        Raises UplinkError when there is no hub any more. What keeps only this from being heard does not keep
        the taps back.
        """
        run = self._run
        try:
            lost = await run.checked(run.learning.lost_by, answer)
        except AnswerRefused:  # what does not read is told when the taps are up
            return False
        if run.delivery.unheard is not None:
            version = await run.use(revoked_list.version_of, run.ledger)
            run.delivery.unheard = run.delivery.unheard if run.delivery.unheard.version == version else None
        if lost is None or not self._may_say(answer.hello.replica, lost.held.version):
            return False
        try:
            return await self._say(lost, answer)
        except (HubTooSlow, HubRefused, AnswerRefused) as error:
            self._note(lost.held.version, _not_yet(lost, str(error)))
            return False

    def _may_say(self, hub: ReplicaId, version: int) -> bool:
        again = self._run.delivery.unheard is not None and not self._retry
        if again or (hub, version) in self._said:
            return False
        self._said.add((hub, version))
        return True

    async def _say(self, lost: Lost, before: Answer) -> bool:
        run = self._run
        answer = await run.say({}, await run.use(run.learning.papers_of, lost.held))
        if await run.checked(run.learning.hold, answer):
            return True
        refusal = answer.refusals[-1] if answer.refusals else None  # what is said of a list comes last
        judged = refusal is not None and refusal.code not in _FOR_NOW
        if lost.given is not None and judged and await run.checked(run.learning.hold, before):
            self._note(lost.given.version, _for_good(lost, _word(refusal)))
            return True
        self._note(lost.held.version, _not_yet(lost, _word(refusal)))
        return False

    def _note(self, version: int, why: str) -> None:
        unheard = Unheard(version, why)
        if unheard != self._run.delivery.unheard:
            log.warning("%s", why)
        self._run.delivery.unheard = unheard


def _word(refusal: Refusal | None) -> str:
    return "The hub does not say that it has them." if refusal is None else str(refusal_in(refusal))


def _not_yet(lost: Lost, word: str) -> str:
    return (
        f"The hub was put back and has lost that {lost.whom} had ended. It has not taken that from this"
        f" terminal yet, which goes by it and tells it again. {word}"
    )


def _for_good(lost: Lost, word: str) -> str:
    return (
        f"The hub was put back and has lost that {lost.whom} had ended. It does not take that from this"
        f" terminal, so what they wrote later counts again: look through the revoked terminals there. {word}"
    )
