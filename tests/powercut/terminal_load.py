"""A terminal at work: it taps, seals, syncs and restarts, and says what it was told is durable.

Marks: `try` before a tap, with its facts, and `tapped` when it was acknowledged; `page` and `paged` around a
settlement page; `carry` and `carried` around blocks of another terminal; `document` and `documented`; `key`
when the key file is there. The hub is a real one, outside the watched directory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from crdt.documents import SignedDocument
from crdt.facts import CardId, CardView, Draft, Kind
from crdt.settlement import verify_page
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from tests.crdt import world
from tests.powercut.chain import Chain
from tests.powercut.parties import (
    CARDS,
    FARE,
    ME,
    OPENING_MINOR,
    OTHERS,
    key_of,
    open_database,
    open_hub,
    open_terminal,
)
from tests.powercut.shim import Shim

PAGE_ROWS: Final = 3
DOCUMENT: Final = "fleet"
NORMAL: Final = "normal"  # flaw: synchronous=NORMAL, which syncs the log only when it is moved
EARLY: Final = "early"  # flaw: the light is green before the commit


@contextlib.contextmanager
def at_work(directory: Path, outside: Path, shim: Shim, chance: Random, flaw: str = "") -> Iterator[Worker]:
    """The program, started. `flaw`: a mistake to make on purpose, so that the checks can find it."""
    with open_hub(outside, bytes(32), chance) as (_, hub):
        worker = Worker(directory, hub, shim, chance, flaw)
        try:
            yield worker
        finally:
            worker.close()


class Worker:
    """The terminal's program."""

    def __init__(self, directory: Path, hub: HubLedger, shim: Shim, chance: Random, flaw: str) -> None:
        self._directory = directory
        self._hub = hub
        self._shim = shim
        self._chance = chance
        self._flaw = flaw
        self._others = [Chain(author) for author in OTHERS]
        self._version = 0
        self._clock_ms = 1_000
        self._open()

    def step(self) -> None:
        """One thing that a terminal does; most are taps."""
        doing = self._chance.choices(
            (
                *(self.tap, self.seal, self.carry, self.push),
                *(self.pull, self.pull_all, self.document, self.restart),
            ),
            (60, 8, 6, 8, 10, 6, 4, 2),
        )[0]
        doing()

    def acknowledge(self) -> None:
        """Get something acknowledged, whatever was before."""
        self.tap()

    def tap(self) -> None:
        """A ride, sometimes two: with an opening balance on a card met for the first time."""
        card = self._chance.choice(CARDS)
        self._clock_ms += 1
        self._ledger.transact(card, lambda view: (self._drafts(card, view), None), self._clock_ms)
        if self._flaw != EARLY:
            self._shim.mark("tapped")

    def _drafts(self, card: CardId, view: CardView) -> list[Draft]:
        drafts = [FARE] if view.known else [Draft(Kind.OPENING, OPENING_MINOR), FARE]
        facts = [[card.hex(), draft.kind, draft.amount_minor, self._clock_ms] for draft in drafts]
        self._shim.mark("try", facts=facts)
        if self._flaw == EARLY:
            self._shim.mark("tapped")
        return drafts

    def seal(self) -> None:
        """Seal what is open."""
        self._ledger.seal()

    def carry(self) -> None:
        """Another terminal meets this one, and gives it all its blocks."""
        other = self._chance.choice(self._others)
        other.grow(self._chance)
        raws = [block.raw for block in other.blocks]
        self._shim.mark("carry", raws=[raw.hex() for raw in raws])
        report = self._ledger.merge(raws, [other.author.certificate])
        if report.refused:
            raise AssertionError(f"another terminal's blocks were refused: {report.refused}")
        self._shim.mark("carried")

    def push(self) -> None:
        """The hub gets blocks of this terminal and of others, and books something itself."""
        self._ledger.seal()
        head = self._hub.heads([ME.key.replica]).result().get(ME.key.replica)
        own = self._ledger.blocks_after(head.seq if head else 0, 1 << 20)
        other = self._chance.choice(self._others)
        other.grow(self._chance)
        raws = [*own, *(block.raw for block in other.blocks)]
        self._hub.merge(raws, [ME.certificate, other.author.certificate]).result()
        card = self._chance.choice(CARDS)
        self._hub.append(card, [Draft(Kind.TOPUP, 1_000)], self._clock_ms).result()
        self._hub.set_hotlisted(self._chance.choice(CARDS), self._chance.random() < 0.5).result()

    def pull(self) -> bool:
        """One page of a settlement; whether it was the last."""
        page = verify_page(self._hub.page(*self._ledger.settled(), PAGE_ROWS).result(), world.HUB)
        self._shim.mark("page", raw=page.raw.hex())
        final = self._ledger.install(page)
        self._shim.mark("paged")
        return final

    def pull_all(self) -> None:
        """The rest of a settlement."""
        while not self.pull():
            pass

    def document(self) -> None:
        """A new version of the fleet's settings."""
        self._version += 1
        body = self._chance.randbytes(self._chance.randrange(1, 3_000))
        document = SignedDocument.seal(world.HUB_KEY, world.FLEET, DOCUMENT, self._version, body)
        self._shim.mark("document", raw=document.encode().hex())
        self._ledger.put_document(document)
        self._shim.mark("documented")

    def restart(self) -> None:
        """The program ends and is started again."""
        self.close()
        self._open()

    def close(self) -> None:
        """The program ends."""
        self._database.close()

    def _open(self) -> None:
        key = key_of(self._directory, self._chance)
        self._shim.mark("key")
        self._database = open_database(self._directory, key, TERMINAL_LAYOUT)
        weaken(self._database, self._flaw)
        self._ledger = open_terminal(self._database, self._directory, self._chance)


def weaken(opened: Database, flaw: str) -> None:
    """Plant a flaw of the database, if it is one."""
    if flaw == NORMAL:
        opened._gate.enter()  # it may not be set in a transaction
        opened._writer._raw.execute("PRAGMA synchronous = NORMAL")
        opened._gate.leave()
