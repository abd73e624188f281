"""How soon one door of a bus knows of a tap at the other: no hub, real zeroconf and TLS on loopback."""

import asyncio
import statistics
import time
from pathlib import Path

from crdt.facts import CardId
from edge.peers import Pacing
from tests.bench.table import Figure
from tests.edge.authority import Fleet
from tests.edge.doors import Door, doors
from tests.edge.test_peering import NEVER_S, online, peering, running, until

TARGET_MS = 1_000
LOOK_S = 0.002
PACING = Pacing("bus 12", NEVER_S, NEVER_S)


def measure(directory: Path, taps: int) -> Figure:
    """Tap after tap at the front door, each of a card that is new to both; the median."""
    with doors(directory, Fleet()) as (front, rear):
        took_ms = sorted(asyncio.run(_told_ms(front, rear, taps)))
    detail = f"from the tap's being durable; {taps} taps, the slowest {took_ms[-1]:.0f} ms"
    return Figure(
        "two doors: ms until the other knows",
        statistics.median(took_ms),
        TARGET_MS,
        at_least=False,
        detail=detail,
    )


async def _told_ms(front: Door, rear: Door, taps: int) -> list[float]:
    parts = [peering(door, PACING) for door in (front, rear)]
    took_ms = []
    async with running(*parts):
        await until(lambda: all(map(online, parts)))
        for number in range(1, taps + 1):
            card = CardId(number.to_bytes(7, "big"))
            await asyncio.to_thread(front.ride, card)
            began_s = time.perf_counter()
            parts[0].tapped()
            # A ledger tells nobody what it has come to believe, so it is looked at.
            while not (await asyncio.to_thread(rear.ledger.view, card)).known:  # noqa: ASYNC110 - no event
                await asyncio.sleep(LOOK_S)
            took_ms.append((time.perf_counter() - began_s) * 1_000)
    return took_ms
