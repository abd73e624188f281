"""What lies in a hub's quarantine, whole: the product shows lists of it, and looks up single blocks."""

from concurrent.futures import Future

from crdt.store import quarantine
from crdt.store.hub import HubLedger
from crdt.store.jobs import Rank
from crdt.store.quarantine import Quarantined

MANY_STEPS = 10_000


def in_quarantine(hub: HubLedger) -> Future[list[Quarantined]]:
    """Every block there, by author and number, with what became of its facts."""
    return hub._database.read(quarantine.entries)


def at_rest(hub: HubLedger) -> None:
    """Wait until all that is to leave the record has, the history has the rest, and the hub has compared with
    it all that it has to."""
    parts = hub._parts
    chores = (parts.cutting, parts.projection._chore, parts.own._comparing)
    for _ in range(MANY_STEPS):
        if not any(chore._running for chore in chores):
            return
        hub._database.write(lambda _connection: None, rank=Rank.BACKGROUND).result()
    raise AssertionError("it does not rest")
