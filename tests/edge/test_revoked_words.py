"""What a technician reads of a terminal that an operator has revoked: not that its storage was put back."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from crdt.facts import CardId
from edge import tech
from edge.errors import NotCompared
from edge.report import Report
from edge.settings import check_settings
from edge.terminal import Terminal
from edge.uplink import UplinkStatus
from tests.edge.authority import Fleet
from tests.edge.clocks import standing_clock
from tests.edge.doors import Door, doors, revoked
from tests.edge.test_courier import controlled

CARD = CardId(b"\x04\x01\x02\x03")


@pytest.fixture
def door(tmp_path: Path, fleet: Fleet) -> Iterator[Door]:
    """With a tap that is not sealed."""
    with doors(tmp_path, fleet, 1) as (door,):
        door.ride(CARD)
        yield door


@pytest_asyncio.fixture
async def socket(door: Door, tmp_path: Path) -> AsyncIterator[Path]:
    async with controlled(door.terminal, tmp_path / "control.sock") as path:
        yield path


def status(terminal: Terminal) -> dict[str, Any]:
    settings = check_settings(Path("/etc/edge.toml"), {"terminal": {"name": "Bus 7"}})
    return Report(settings, terminal, standing_clock(), str).for_technician(UplinkStatus())


def test_the_status_of_a_revoked_terminal_says_who_ended_it(door: Door, fleet: Fleet) -> None:
    """Revocation suspends the ledger too, and no sync makes that good."""
    door.ledger.put_document(revoked(fleet, {door.replica: 0}))
    told = tech.tell_status(status(door.terminal))
    assert "REVOKED by an operator" in told
    assert "ended with its identity, by an operator" in told
    assert "OLD COPY" not in told
    assert "Nothing to do" not in told


def test_the_status_of_an_old_copy_says_so(door: Door) -> None:
    door.ledger.suspend()
    told = tech.tell_status(status(door.terminal))
    assert "AN OLD COPY WAS PUT BACK" in told
    assert "where the hub refuses it, what uplink says" in told, "it may have ended what the copy is of"
    assert "REVOKED" not in told
    assert "by an operator" not in told


def test_taps_that_were_not_sealed_go_up_once_it_is_paired_anew(door: Door, fleet: Fleet) -> None:
    """As the status promises: they are kept, and the next identity's."""
    door.ledger.put_document(revoked(fleet, {door.replica: 0}))
    terminal = door.identity.certificate.terminal
    door.terminal.enrol(fleet.enrol(terminal=terminal), door.identity)
    door.presences.refresh()
    assert door.ledger.own_head().seq == 0
    door.ledger.seal()
    assert door.ledger.own_head().seq == 2
    assert door.balance(CARD) == 750


async def test_an_export_says_what_its_taps_wait_for(
    door: Door, fleet: Fleet, socket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(door.ledger.put_document, revoked(fleet, {door.replica: 0}))
    arguments = ["--socket", str(socket), "export", str(tmp_path / "stick")]
    assert await asyncio.to_thread(tech.main, arguments) == 1
    told = capsys.readouterr().out
    assert "2 TAPS ARE NOT IN IT: an operator has revoked the terminal" in told
    assert "pairing it anew" in told
    assert "old copy" not in told


def test_pairing_that_a_revocation_overtakes_says_that(door: Door, fleet: Fleet) -> None:
    door.ledger.put_document(revoked(fleet, {door.replica: 0}))
    with pytest.raises(NotCompared, match="was revoked by an operator"):
        door.terminal.enrol(fleet.enrol(terminal=door.identity.certificate.terminal))
