"""A bus that comes back after thirty days: its taps up to a real hub, the settlement down, over TLS."""

import asyncio
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from crdt.facts import CardId, CardView, Context, Draft, Kind
from crdt.frames import Message, encode_frame
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from crdt.store.editions import MAX_AGE_S
from edge.addresses import AddressBook, HubAddress, parse_address
from edge.enrolling import Enroller, Way
from edge.exchange import Answer, ExchangeClient
from edge.https import Limits
from edge.sync import Sync
from edge.terminal import Enrolment, Terminal
from edge.tls import client_context
from hub.control_client import ask
from tests.bench import bare
from tests.bench.table import Figure
from tests.hub.processes import hub_process

DAYS: Final = 30
TAPS_A_DAY: Final = 1_250
RIDERS: Final = 5_000  # cards that the hub has met before
START_MS: Final = 1_790_000_000_000
WIRE_TARGET: Final = 6.0
_LIMITS: Final = Limits(total_s=120, read_s=60)


def measure(directory: Path, source: random.Random, days: int = DAYS) -> list[Figure]:
    """Seconds and bytes until hub and terminal agree again after so many days."""
    taps = days * TAPS_A_DAY
    bus = Database.open(directory / "bus.db", bare.KEY, layout=TERMINAL_LAYOUT)
    with bus as database, hub_process(directory) as hub:
        address = parse_address(hub.start().removeprefix("https://"))
        invite = ask(hub.directory / "state" / "control.sock", "POST", "/invite", {})
        seconds, sent_bytes = asyncio.run(
            _reconnect(Terminal(database), address, invite["code"], source, days)
        )
    detail = (
        f"{taps:,} taps of {days} days on {RIDERS:,} cards, in blocks of 250; real hub process, TLS, fsync"
    )
    each = sent_bytes / taps
    return [
        Figure(f"{days} days of a bus reconnect: seconds", seconds, None, at_least=False, detail=detail),
        Figure(
            f"{days} days of a bus reconnect: bytes a tap",
            each,
            WIRE_TARGET,
            at_least=False,
            detail=f"{sent_bytes / 1000:,.0f} kB up in all: frames, signatures, certificates, status",
        ),
    ]


async def _reconnect(
    terminal: Terminal, address: HubAddress, code: str, source: random.Random, days: int
) -> tuple[float, int]:
    book = AddressBook(address, None)
    enroller = Enroller(terminal, book, "bus 12", Way(_LIMITS, ""), lambda _address: None, os.urandom)
    await enroller.pair(code, address)
    enrolment = terminal.enrolment
    assert enrolment is not None
    cards = [CardId(source.randbytes(7)) for _ in range(min(RIDERS, days * TAPS_A_DAY))]
    await asyncio.to_thread(_tap, enrolment, cards, Kind.OPENING, source, days)
    await _sync(terminal, enrolment, address)
    riders = source.choices(cards, k=days * TAPS_A_DAY)
    await asyncio.to_thread(_tap, enrolment, riders, Kind.FARE, source, days)
    await asyncio.to_thread(enrolment.ledger.seal)
    began = time.perf_counter()
    sent_bytes = await _sync(terminal, enrolment, address)
    seconds = time.perf_counter() - began
    if enrolment.ledger.held()[0]:
        await asyncio.sleep(MAX_AGE_S)  # so old a page may be that the busy hub gave
        await _sync(terminal, enrolment, address)
    assert enrolment.ledger.held() == (0, 0), "the hub's settlement does not include every tap"
    return seconds, sent_bytes


def _tap(enrolment: Enrolment, cards: Sequence[CardId], kind: Kind, source: random.Random, days: int) -> None:
    """One fact on each card, spread over the days, with the stops and trips of a bus's work."""
    draft = Draft(kind, -250 if kind is Kind.FARE else 100)
    times = sorted(source.randrange(days * 86_400_000) for _ in cards)

    def choose(_view: CardView) -> tuple[tuple[Draft], None]:
        return (draft,), None

    for number, (card, at_ms) in enumerate(zip(cards, times, strict=True)):
        context = Context("110", f"T{number // 60}", f"{750_000 + number // 3 % 40}", 1, 500)
        enrolment.ledger.transact(card, choose, START_MS + at_ms, context)


async def _sync(terminal: Terminal, enrolment: Enrolment, address: HubAddress) -> int:
    """One whole run; how many bytes went up."""
    identity = enrolment.identity
    context = await asyncio.to_thread(client_context, identity)
    sent_bytes = 0
    async with ExchangeClient(identity.fleet, identity.replica, context, _LIMITS) as client:

        async def exchange(messages: Sequence[Message]) -> Answer:
            nonlocal sent_bytes
            sent_bytes += sum(len(encode_frame(message)) for message in messages)
            return await client.exchange(address, messages)

        outcome = await Sync(terminal, enrolment, exchange, lambda: {"name": "bus 12"}).run()
    assert outcome.complete
    return sent_bytes
