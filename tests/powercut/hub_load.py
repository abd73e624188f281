"""A hub at work: it merges, books, lists cards, settles and restarts, and says what it acknowledged.

Marks: `give` before a merge, with the blocks, and `merged` with the heads acknowledged; `book` and `booked`
around a top-up; `list` and `listed` around a change of the hotlist; `told` with a settlement page that a
terminal was given; `key` when the key file is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from crdt.facts import CardId, Draft, Kind
from crdt.frontier import Head
from crdt.ledger import MergeReport
from crdt.store.recording import Booking
from tests.powercut.chain import Chain
from tests.powercut.parties import CARDS, ME, OTHERS, key_of, open_hub
from tests.powercut.settling import Settled
from tests.powercut.shim import Shim
from tests.powercut.terminal_load import EARLY, weaken

PAGE_ROWS: Final = 3


@contextlib.contextmanager
def at_work(directory: Path, _outside: Path, shim: Shim, chance: Random, flaw: str = "") -> Iterator[Worker]:
    """The program, started. `flaw`: a mistake to make on purpose, so that the checks can find it."""
    worker = Worker(directory, shim, chance, flaw)
    try:
        yield worker
    finally:
        worker.close()


class Worker:
    """The hub's program, with the terminals that send and one that pulls."""

    def __init__(self, directory: Path, shim: Shim, chance: Random, flaw: str) -> None:
        self._directory = directory
        self._shim = shim
        self._chance = chance
        self._flaw = flaw
        self._chains = [Chain(author) for author in (ME, *OTHERS)]
        self._puller = Settled()
        self._booked: list[tuple[str, CardId, Draft]] = []
        self._listed: set[CardId] = set()
        self._open()

    def step(self) -> None:
        """One thing that a hub does, or several at once."""
        doing: Callable[[], None] = self._chance.choices(
            (self.merge, self.crowd, self.book, self.book_again, self.hotlist, self.pull, self.restart),
            (25, 10, 20, 8, 8, 25, 2),
        )[0]
        doing()

    def acknowledge(self) -> None:
        """Get something acknowledged, whatever was before."""
        self.book()

    def merge(self) -> None:
        """One terminal sends some blocks."""
        self._merge(self._chance.choice(self._chains)).result()

    def crowd(self) -> None:
        """Terminals send and the office books at the same time: they share commits."""
        one, other = self._chance.sample(self._chains, 2)
        under_way = [self._merge(one), self._book(), self._merge(other), self._book()]
        wait(under_way)
        for each in under_way:
            each.result()

    def book(self) -> None:
        """A top-up."""
        self._book().result()

    def book_again(self) -> None:
        """A top-up whose answer was lost: the same request again."""
        if self._booked:
            request, card, draft = self._chance.choice(self._booked)
            booking = self._ledger.append(card, [draft], 5_000, request=request).result()
            if not booking.repeated:
                raise AssertionError(f"the request {request} booked twice")

    def hotlist(self) -> None:
        """A card is blocked, or released."""
        card = self._chance.choice(CARDS)
        on = card not in self._listed
        self._listed ^= {card}
        self._shim.mark("list", card=card.hex(), on=on)
        self._ledger.set_hotlisted(card, on).result()
        self._shim.mark("listed")

    def pull(self) -> None:
        """A terminal gets a page of a settlement."""
        page = self._ledger.page(*self._puller.asks, PAGE_ROWS).result()
        self._shim.mark("told", raw=page.raw.hex())
        self._puller = self._puller.taking(page)

    def restart(self) -> None:
        """The program ends and is started again."""
        self.close()
        self._open()

    def close(self) -> None:
        """The program ends."""
        self._running.close()

    def _merge(self, chain: Chain) -> Future[Any]:
        blocks = [chain.grow(self._chance) for _ in range(self._chance.randrange(1, 4))]
        raws = [block.raw for block in blocks]
        self._shim.mark("give", raws=[raw.hex() for raw in raws])
        if self._flaw == EARLY:
            self._shim.mark("merged", heads={chain.author.key.replica.hex(): blocks[-1].last_seq})
        merging = self._ledger.merge(raws, [chain.author.certificate])
        if self._flaw != EARLY:
            merging.add_done_callback(self._merged)
        return merging

    def _merged(self, merging: Future[MergeReport]) -> None:
        if merging.exception() is None:
            heads: dict[Any, Head] = {**merging.result().heads}
            self._shim.mark("merged", heads={replica.hex(): head.seq for replica, head in heads.items()})

    def _book(self) -> Future[Any]:
        request = f"request {len(self._booked)}"
        card = self._chance.choice(CARDS)
        draft = Draft(Kind.TOPUP, 1_000 + len(self._booked))
        self._booked.append((request, card, draft))
        self._shim.mark("book", request=request, card=card.hex(), amount=draft.amount_minor)
        booking = self._ledger.append(card, [draft], 5_000, request=request)
        booking.add_done_callback(partial(self._was_booked, request))
        return booking

    def _was_booked(self, request: str, booking: Future[Booking]) -> None:
        if booking.exception() is None:
            self._shim.mark("booked", request=request)

    def _open(self) -> None:
        key = key_of(self._directory, self._chance)
        self._shim.mark("key")
        self._running = contextlib.ExitStack()
        database, self._ledger = self._running.enter_context(open_hub(self._directory, key, self._chance))
        weaken(database, self._flaw)
