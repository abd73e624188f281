"""What the hub has to write so that each fact of a block in quarantine counts once, told by contents alone.

So it follows from the set of facts, whichever identity of the hub looks, in whichever order they came, and
however often its database was put back in between. What a terminal's chain says counts there, and the hub
has no copy of it left. Of what they do not say, and the hub has ever copied because an operator adopted it,
it has one copy: where it has taken that back a terminal's was here, and that may be lost since, or revoked.
An adoption stands: a list of revoked authors is about what they wrote, and not about what the hub did.

A block comes into quarantine before anybody has looked whether its author might write that. So by itself the
hub makes good what it has taken back, one copy where no terminal at all has the fact; never more because a
block says so. More is an operator's to adopt.

A ride that the hub has copied counts once also where nothing in quarantine says it, see `reckon_ride`; and so
does one that several terminals' chains say, see `reckon_repeats`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from crdt.facts import Delta, Kind
from crdt.store.content import Content
from crdt.store.resolutions import ADOPTED, OPEN, PART, REISSUED, SAID, UNDONE


@dataclass(frozen=True, slots=True)
class Held:
    """How often the chains that count say what a block in quarantine says, or take it back.

    `theirs`: those of all terminals, for a copy of one's storage may go on under another name. `hubs`: of all
    identities of the hub.
    """

    theirs: Counter[Content] = field(default_factory=Counter)
    hubs: Counter[Content] = field(default_factory=Counter)

    def copies(self, content: Content) -> int:
        """How many of the hub's count; below zero, how many were taken back too often."""
        return self.hubs[content] - self._backs(content)

    def traces(self, content: Content) -> int:
        """How often a hub has copied this fact, or taken a copy back: a sign that it was adopted once."""
        return self.hubs[content] + self._backs(content)

    def knows(self, content: Content) -> bool:
        """Whether anybody has written this, or the hub has taken it back."""
        return self.theirs[content] > 0 or self.traces(content) > 0

    def _backs(self, content: Content) -> int:
        return self.hubs[content.back] if content.may_be_taken_back else 0


@dataclass(frozen=True, slots=True)
class Reckoning:
    """Of one block in quarantine."""

    due: Sequence[Delta]  # what the hub has to write for it now; numbers and author are still the block's
    lacking: Sequence[Delta]  # what nobody counts, unless an operator adopts it
    copied: bool  # whether a copy of the hub's counts, for what no terminal has
    traced: bool  # whether the hub has ever copied any of it

    def adopted(self) -> Reckoning:
        """The same once the hub has booked all that is lacking too."""
        copied = self.copied or bool(self.lacking)
        return replace(self, due=[*self.due, *self.lacking], lacking=(), copied=copied)

    def resolution(self, before: str) -> str:
        """What has become of the block; `before`: as was noted."""
        if self.lacking:
            return SAID if before == SAID else PART if self.copied else OPEN
        if self.copied:
            return ADOPTED
        return UNDONE if self.traced else REISSUED


def reckon(facts: Sequence[Delta], held: Held, *, own: bool) -> Reckoning:
    """Reckon a block of these facts. `own`: it is of a branch of a hub's own chain."""
    due: list[Delta] = []
    lacking: list[Delta] = []
    copied = traced = False
    times = Counter(map(Content.of, facts))
    for content, fact in {Content.of(fact): fact for fact in facts}.items():
        if own and _takes_back(fact):
            continue  # what another block says, and it is reckoned with that
        theirs = held.theirs[content]
        # A reader takes no two rides of one moment: what counts of a terminal is the one, see `reckon_ride`.
        missing = 0 if theirs and content.kind is Kind.FARE else max(0, times[content] - theirs)
        traces, copies = held.traces(content), held.copies(content)
        least = 1 if traces and not theirs else 0
        wanted = max(least, min(copies, missing))
        if content.may_be_taken_back:
            due += _towards(fact, wanted - copies)
        copied |= wanted > 0
        traced |= traces > 0
        lacking += [fact] * (missing - wanted)
    return Reckoning(due, lacking, copied, traced)


def reckon_ride(ride: Delta, held: Held, most: int) -> Sequence[Delta]:
    """What the hub has to write of a ride that it has ever copied or taken back, whatever is in quarantine.

    A terminal has written it, and that counts: then no copy does. Else one does: what it was taken back for
    is lost, or was revoked. No more than the `most` that one identity of the hub has written, less what
    others took back: another may have adopted the same again. Of a sale nothing can be said so: the hub may
    have made another one.
    """
    content = Content.of(ride)
    copies = held.copies(content)
    wanted = 0 if held.theirs[content] else max(1, min(copies, most))
    return _towards(ride, wanted - copies)


def reckon_repeats(ride: Delta, due: int) -> Sequence[Delta]:
    """What the hub has to write of a ride that several terminals' chains say, for one of them to count.

    `due`: how many are to be taken back; below zero, how many to be reinstated, for one is cut off. What the
    hub has adopted is another matter, and has facts of its own: these here have no part in it.
    """
    if due >= 0:
        return [replace(ride, kind=Kind.DUPLICATE, amount_minor=-ride.amount_minor)] * due
    return [replace(ride, kind=Kind.REINSTATED)] * -due


def _takes_back(fact: Delta) -> bool:
    """Whether a fact of a hub's is about another one: it took that back, or undid that."""
    return fact.kind in (Kind.REVERSAL, Kind.RETRACTION, Kind.DUPLICATE, Kind.REINSTATED)


def _towards(fact: Delta, copies: int) -> list[Delta]:
    """So many copies more of a fact; below zero, what takes so many back."""
    if copies >= 0:
        return [fact] * copies
    back = Content.of(fact).back
    return [replace(fact, kind=back.kind, amount_minor=back.amount_minor)] * -copies
