"""Terminals of a hub that was put back, marks and all, and only merged in the time it lost: nothing tells it.

What they have installed or staged of that time is of another history, though the series is the same.
Invariants 4 (nothing acknowledged is lost) and 6 (the view is exact).
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from crdt.errors import StoreFailed
from crdt.store import installer
from crdt.store.database import Database
from crdt.store.installer import Installer
from crdt.store.server import ServerDatabase
from crdt.store.store import Store
from tests.crdt.store.dumps import Dump
from tests.crdt.store.fleet import KEY, OpenTerminal, card
from tests.crdt.store.servers import Server
from tests.crdt.store.stores import INTERVAL_S, FleetOn

CARDS = range(1, 7)
on_a_file = pytest.mark.parametrize("server", ["file"], indirect=True)


class Machine(FleetOn):
    """A fleet whose hub keeps no marks, as if they always went back with the database."""

    def __init__(self, directory: Path, server: Server | None) -> None:
        self._server = server
        self._ledger = directory / "hub.db"
        self._url = "" if server is None else server.with_tables()
        super().__init__(directory, 3, self._open)
        self.one, self.other, self.another = self.terminals

    def image(self) -> Callable[[], None]:
        """Copy the hub's machine while it stands still; what puts it in its place again."""
        self.hub_database.close()
        put_back = self._copied() if self._server is None else Dump(self._server, self._url).put_back
        self.open_hub()

        def back() -> None:
            self.hub_database.close()
            put_back()
            self.open_hub()

        return back

    def restart(self) -> None:
        """The hub ends and starts again."""
        self.hub_database.close()
        self.open_hub()

    def ride(self, terminal: OpenTerminal, *numbers: int) -> None:
        """A tap on each of these cards, each of them merged by itself."""
        for number in numbers:
            terminal.tap(card(number))
            self.push(terminal)

    def _copied(self) -> Callable[[], object]:
        return partial(shutil.copy, shutil.copy(self._ledger, self._directory / "image"), self._ledger)

    def _open(self) -> Store:
        if self._server is None:
            return Database.open(self._ledger, KEY, readers=2)
        return ServerDatabase.open(self._url, KEY, interval_s=INTERVAL_S)


@pytest.fixture
def machine(server: Server | None, tmp_path: Path) -> Iterator[Machine]:
    """A hub that has all cards, each of them with a position of its own, and terminals that have nothing."""
    machine = Machine(tmp_path, server)
    machine.ride(machine.other, *CARDS)
    yield machine
    machine.close()


def inventory(machine: Machine) -> None:
    """The first cards of a first load."""
    machine.pull_one(machine.one, limit=2)


def changes(machine: Machine) -> None:
    """The first cards of those that changed since a first load began."""
    inventory(machine)
    machine.ride(machine.other, *CARDS)
    assert machine.next_page(machine.one, limit=9).ends_inventory
    machine.pull_one(machine.one, limit=9)
    machine.pull_one(machine.one, limit=2)


def increment(machine: Machine) -> None:
    """The first cards of those that changed since the last settlement."""
    machine.pull(machine.one)
    machine.ride(machine.other, *CARDS)
    machine.pull_one(machine.one, limit=2)


@pytest.mark.parametrize("half_way", [inventory, changes, increment])
def test_what_was_staged_in_a_lost_time_is_begun_anew(
    machine: Machine, half_way: Callable[[Machine], None]
) -> None:
    """A card that changed in it was left for later, and in the image it lies before the cursor.

    At once, and weeks later, when the hub's position has passed what it was in that time.
    """
    one = machine.one
    half_way(machine)
    back = machine.image()
    machine.ride(machine.other, 4)
    page = machine.next_page(one, limit=2)
    assert card(4) not in [row.card for row in page.rows]
    assert not machine.install(one, page)
    back()
    assert machine.next_page(one).restarts
    machine.ride(machine.another, *range(10, 20))
    assert machine.next_page(one).restarts
    machine.pull(one)
    assert one.ledger.digest() == machine.hub.digest().result()


def test_what_was_installed_in_a_lost_time_is_loaded_anew(machine: Machine) -> None:
    """At once, and weeks later."""
    machine.pull(machine.one)
    machine.pull(machine.another)
    back = machine.image()
    machine.restart()
    machine.ride(machine.other, *CARDS)
    for terminal in (machine.one, machine.another):
        machine.pull(terminal)
    back()
    assert machine.next_page(machine.one).restarts
    machine.pull(machine.one)
    machine.ride(machine.another, *range(10, 20))
    assert machine.next_page(machine.another).restarts
    machine.heal()
    for terminal in machine.terminals:
        assert terminal.ledger.digest() == machine.hub.digest().result()


@on_a_file
@pytest.mark.parametrize("half_way", [inventory, changes, increment])
def test_a_load_goes_on_over_restarts_of_the_hub(
    machine: Machine, half_way: Callable[[Machine], None]
) -> None:
    """Wherever it is, and whether something is merged between them: what was given is not given again."""
    half_way(machine)
    final, merged = False, iter(range(40, 43))
    while not final:
        for number in (next(merged, None), None):
            machine.restart()
            if number is not None:
                machine.ride(machine.another, number)
        page = machine.next_page(machine.one, limit=1)
        assert page.continues(*machine.one.ledger.settled())
        assert not page.restarts
        final = machine.install(machine.one, page)
    assert machine.one.ledger.digest() == machine.hub.digest().result()


@on_a_file
@pytest.mark.parametrize("seed", range(4))
def test_a_settlement_is_exact_whatever_happens_to_the_hub_between_its_pages(
    machine: Machine, seed: int
) -> None:
    """Invariant 6, over changes that nobody brings again, images of the hub, and putting them back."""
    chance = Random(seed)  # noqa: S311 - to be played again
    backs = [machine.image()]
    for _ in range(120):
        match chance.choice(["change"] * 5 + ["page"] * 4 + ["image", "back"]):
            case "change":
                toggle(machine, chance.sample(CARDS, 3))
            case "page":
                machine.pull_one(machine.one, limit=1)
            case "image":
                backs.append(machine.image())
            case "back":
                backs[-1]()
                if chance.random() < 0.5:
                    machine.pull(machine.one)
                    check_listed(machine)


def toggle(machine: Machine, numbers: list[int]) -> None:
    """Put each of these cards on the hotlist, or take it off."""
    for number in numbers:
        row = machine.hub.card(card(number)).result()
        machine.hub.set_hotlisted(card(number), row is None or not row.hotlisted).result()


def check_listed(machine: Machine) -> None:
    """What has just been settled on the terminal is the hub's hotlist."""
    rows = {number: machine.hub.card(card(number)).result() for number in CARDS}
    listed = {number for number, row in rows.items() if row is not None and row.hotlisted}
    assert {number for number in CARDS if machine.one.ledger.view(card(number)).hotlisted} == listed


@on_a_file
@pytest.mark.parametrize(("half_way", "steps"), [(changes, 5), (increment, 1)])
def test_a_page_of_a_lost_time_of_which_a_part_was_staged_is_begun_anew(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, half_way: Callable[[Machine], None], steps: int
) -> None:
    """The power went in the middle of it: the cursor is still that of before, and a card is not."""
    monkeypatch.setattr(installer, "CHUNK_ROWS", 1)
    monkeypatch.setattr(installer, "SMALL_ROWS", 0)
    half_way(machine)
    back = machine.image()
    machine.ride(machine.other, 1)
    machine.ride(machine.another, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Installer, "_stage", only(steps, Installer._stage))
        with pytest.raises(StoreFailed):
            machine.pull_one(machine.one)
    machine.one.reopen()
    back()
    machine.pull(machine.one)
    assert machine.one.ledger.digest() == machine.hub.digest().result()


def only(steps: int, staged: Callable[..., None]) -> Callable[..., None]:
    """So many steps of staging, and then the power goes."""
    left = iter(range(steps))

    def stage(*arguments: object) -> None:
        if next(left, None) is None:
            raise StoreFailed("the power went")
        staged(*arguments)

    return stage
