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
    """Wait until all that is to leave the record has, and the hub has compared with it all in quarantine that
    it has to."""
    for _ in range(MANY_STEPS):
        if not (hub._parts.cutting._running or hub._parts.own._comparing._running):
            return
        hub._database.write(lambda _connection: None, rank=Rank.BACKGROUND).result()
    raise AssertionError("it does not rest")
