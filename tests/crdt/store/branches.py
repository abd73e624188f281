"""A terminal whose chain has forked, and what tests of adopting wait for."""

import threading
from dataclasses import replace

import pytest

from crdt.block import Block
from crdt.certificate import AuthorCertificate, Role, issue
from crdt.facts import Context, Delta, Kind, TerminalId
from crdt.signing import SigningKey
from crdt.store import blocks
from crdt.store.adopting import Adopter, Adoption
from crdt.store.hub import HubLedger
from tests.crdt import world
from tests.crdt.store.fleet import Fleet, card
from tests.crdt.store.quarantined import in_quarantine

ONE, OTHER, _ = world.TERMINALS
PATIENCE_S = 30
MANY_STEPS = 100


def certificates_read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Those that ledgers read from their stores from now on, each as often as one does."""
    read: list[bytes] = []

    def noted(raw: bytes) -> AuthorCertificate:
        read.append(raw)
        return AuthorCertificate.decode(raw)

    monkeypatch.setattr(blocks, "_decoded", noted)  # which remembers those it has met, and so hides them
    return read


def facts(*money: tuple[int, Kind, int], first: int = 1, author: world.Terminal = ONE) -> list[Delta]:
    """Facts of an author: card, kind, amount."""
    return [
        Delta(author.key.replica, seq, card(number), kind, amount, 1_000 + seq, Context("12", "", "town"))
        for seq, (number, kind, amount) in enumerate(money, first)
    ]


COMMON = facts((1, Kind.OPENING, 500), (1, Kind.FARE, -250))
MINE = facts((2, Kind.FARE, -100), first=3)
THEIRS = facts((1, Kind.FARE, -70), (2, Kind.FARE, -100), (3, Kind.OPENING, 500), first=3)


def renewed(author: world.Terminal, seed: bytes = b"N") -> world.Terminal:
    """The same terminal under another identity; or the hub, whose identities are no terminal's."""
    key, before = SigningKey(seed * 32), author.certificate
    terminal = TerminalId(key.replica) if before.role is Role.HUB else before.terminal
    certificate = issue(world.FLEET_KEY, terminal, before.name, before.role, key.public_key, before.limits)
    return replace(author, key=key, certificate=certificate)


def as_of(facts_of: list[Delta], author: world.Terminal) -> list[Delta]:
    """The same facts by another author, numbered from 1."""
    return [
        replace(delta, replica=author.key.replica, seq=seq) for seq, delta in enumerate(facts_of, start=1)
    ]


def give(hub: HubLedger, *blocks: Block) -> None:
    """Merge and wait."""
    hub.merge([block.raw for block in blocks]).result()


def settled(hub: HubLedger, minor: int, on: int = 1) -> None:
    """Wait until a card has this balance."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if hub.balance(card(on)).result() == minor:
            return
        pause.wait(0.01)
    raise AssertionError(f"{hub.balance(card(on)).result()} instead of {minor}")


def resolved(hub: HubLedger, how: str) -> None:
    """Wait until this is what became of all that is in quarantine."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if {entry.resolution for entry in in_quarantine(hub).result()} == {how}:
            return
        pause.wait(0.01)
    raise AssertionError(f"{[entry.resolution for entry in in_quarantine(hub).result()]} instead of {how}")


def caught_up(hub: HubLedger) -> None:
    """Wait until the history has every block."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if hub.lag().result() == 0:
            return
        pause.wait(0.01)
    raise AssertionError("the history does not catch up")


def steps(fleet: Fleet, adopter: Adopter) -> list[Adoption]:
    """What it does until it rests."""
    done = []
    for _ in range(MANY_STEPS):
        done.append(fleet.hub_database.write_and_wait(lambda connection: adopter.compare(connection, 9)))
        adopter.settle(done[-1])
        if not done[-1].more:
            return done
    raise AssertionError("it does not rest")
