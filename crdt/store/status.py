"""What a terminal says of its ledger, in numbers."""

from __future__ import annotations

from typing import TypedDict

from crdt.store.memory import Memory


class Status(TypedDict):
    """What a terminal says of its ledger."""

    held: int  # deltas beyond the settlement
    held_minor: int  # their sum
    open: int  # deltas not sealed yet
    head_seq: int  # number of the last delta written here
    position: int  # the settlement installed
    believed: int  # facts of peers that are not sealed yet
    foreign_blocks: int  # blocks of other terminals held
    quarantined: int  # blocks that do not count
    credit_left: int  # minor units of credit that this identity may still give
    suspended: bool  # nothing is sealed until a new identity takes over
    revoked: bool  # an operator has ended this identity


def status_of(memory: Memory, allowance_minor: int) -> Status:
    """The numbers of one instant. `allowance_minor`: what this identity may give in all."""
    with memory.mutex:
        return Status(
            held=memory.held.count,
            held_minor=memory.held.sum_minor,
            open=len(memory.segment),
            head_seq=memory.last_seq,
            position=memory.standing.position,
            believed=memory.believed.count,
            foreign_blocks=memory.foreign_blocks,
            quarantined=memory.quarantined,
            credit_left=allowance_minor - memory.credit_minor,
            suspended=memory.suspended,
            revoked=memory.revoked,
        )
