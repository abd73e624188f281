"""Which rides count how often, by what facts say and not by who wrote them."""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from crdt.block import contents, parse
from crdt.facts import Kind
from crdt.store.content import Content
from tests.simulation.disks import Disk

Ride = Content  # of a fare: no two terminals take one of a card in the same millisecond

_TIMES: Final = {Kind.FARE: 1, Kind.REVERSAL: -1, Kind.DUPLICATE: -1, Kind.REINSTATED: 1}


@lru_cache(50_000)
def facts_in(raw: bytes) -> tuple[Content, ...]:
    """What a block says."""
    block = parse(raw)
    deltas = contents(block).deltas(block.header.replica, block.header.first_seq)
    return tuple(Content.of(delta) for delta in deltas)


def counted(raws: Iterable[bytes]) -> Counter[Ride]:
    """How often each ride counts by what these blocks say."""
    found: Counter[Ride] = Counter()
    for fact in (fact for raw in raws for fact in facts_in(raw)):
        found[fact._replace(kind=Kind.FARE, amount_minor=-abs(fact.amount_minor))] += _TIMES[fact.kind]
    return found


def raws_in(disk: Disk, table: str) -> list[bytes]:
    """The blocks in a table of a hub's or a terminal's."""
    return [raw for (raw,) in disk.rows(f"SELECT raw FROM {table}")]  # noqa: S608 - our own names


def label(ride: Ride) -> str:
    """For a trace: on which body it was taken, and when."""
    return f"{ride.context.trip}@{ride.at_ms % 1_000_000}"
