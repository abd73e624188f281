"""Answers kept in memory: never one that a change has overtaken, never where others may change it."""

from typing import Any

import pytest
from sqlalchemy import Connection, Row

from crdt.store.store import Store
from hub import registry
from hub.app import Hub
from hub.remembered import Remembered
from tests.hub.conftest import Depot


@pytest.mark.in_file("with other processes beside it, a hub asks the database anew")
def test_an_answer_is_kept_until_something_changes(founded: Hub) -> None:
    """The registry is asked on every request, and reads the disk only when it has changed."""
    answers: Remembered[str, int] = Remembered(founded.database)
    assert answers.asking("serial")(1) == 1
    assert answers.get("serial") == 1
    answers.forget()
    assert answers.get("serial") is None


def test_an_answer_that_was_read_before_a_change_is_not_kept_after_it(founded: Hub) -> None:
    """hub/README.md: a revocation ends a certificate at once, also for a request that was under way."""
    answers: Remembered[str, int] = Remembered(founded.database)
    keep = answers.asking("serial")
    answers.forget()
    assert keep(1) == 1
    assert answers.get("serial") is None


@pytest.mark.in_file("with other processes beside it, a hub asks the database anew")
@pytest.mark.parametrize(("changed", "kept"), [(["other"], 1), (["serial"], None), (None, None)])
def test_what_has_changed_of_one_answer_costs_no_other(
    changed: list[str] | None, kept: int | None, founded: Hub
) -> None:
    """Each first use of a certificate changes one entry: not the whole fleet is to be asked for again."""
    answers: Remembered[str, int] = Remembered(founded.database)
    answers.asking("serial")(1)
    answers.forget(changed)
    assert answers.get("serial") == kept
    keep = answers.asking("serial")
    answers.forget(changed)
    keep(1)
    assert answers.get("serial") == kept


@pytest.mark.in_file("with other processes beside it, a hub asks the database anew")
async def test_the_first_use_of_one_certificate_leaves_the_others_in_memory(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First contact of a fleet: as many look-ups as terminals, and not as many for each that comes."""
    buses = [await depot.pair(f"Bus {number}") for number in range(3)]
    asked: list[str] = []
    look_up = registry._client

    def counting(connection: Connection, serial: str) -> Row[Any] | None:
        asked.append(serial)
        return look_up(connection, serial)

    monkeypatch.setattr(registry, "_client", counting)
    for bus in [buses[0], buses[1], buses[0], buses[2], buses[1], buses[0]]:
        await bus.exchange()
    assert len(asked) == 3


class ManyWriters:
    """As much of a shared database as tells that it is one."""

    def __init__(self, hub: Hub) -> None:
        shared = {name for name in vars(Store) if not name.startswith("_")} | {"__enter__", "__exit__"}
        self.__dict__.update({name: getattr(hub.database, name) for name in shared})

    def wait_told(self) -> None:
        """As `crdt.store.store.Shared`."""

    def on_others(self, _listener: object) -> None:
        """As `crdt.store.store.Shared`."""

    def guard(self, _guard: object) -> None:
        """As there."""


def test_nothing_is_kept_where_other_processes_write_too(founded: Hub) -> None:
    """What another hub process revoked is refused on the very next request to this one."""
    answers: Remembered[str, int] = Remembered(ManyWriters(founded))  # type: ignore[arg-type]
    answers.asking("serial")(1)
    assert answers.get("serial") is None
