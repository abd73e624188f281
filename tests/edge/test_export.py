"""Courier files of a ledger that carries a fleet's chains: all of them are in it, or it is told at once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt import frontier
from crdt.certificate import AuthorCertificate
from crdt.courier import CourierReader
from crdt.facts import CardId
from crdt.frames import BlockFrame, CertificateFrame
from crdt.session import Event
from crdt.store import terminal_asking
from edge.courier import Export
from edge.errors import ControlError
from tests.crdt.store.branches import certificates_read
from tests.edge.authority import Fleet
from tests.edge.doors import Door, doors

CARD = CardId(b"\x04\x01\x02\x03")


@pytest.fixture
def two(tmp_path: Path, fleet: Fleet) -> Iterator[list[Door]]:
    """Two terminals with a block each; the first carries the other's too."""
    with doors(tmp_path, fleet) as found:
        carrier, other = found
        for door in found:
            door.ride(CARD)
        other.ledger.seal()
        raws = other.ledger.blocks_after(0, 1 << 20)
        assert carrier.ledger.merge(raws, [other.identity.certificate]).added
        yield found


def events_of(export: Export, reader: Door) -> list[Event]:
    """What another terminal finds in the file."""
    written = b"".join(export.parts())
    return CourierReader(reader.identity.fleet, reader.replica).receive_data(written)


def test_an_export_reads_no_certificate_from_the_disk(
    two: list[Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that carries a fleet's has thousands of them: to read all for each chain was for ever."""
    export = Export(two[0].terminal)
    read = certificates_read(monkeypatch)
    put_in = [event.raw for event in events_of(export, two[1]) if isinstance(event, CertificateFrame)]
    assert {AuthorCertificate.decode(raw).replica for raw in put_in} == {door.replica for door in two}
    assert len(put_in) == 2
    assert read == [], "they are in memory"


def test_more_chains_than_a_message_names_are_all_in_a_file(
    two: list[Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a HELLO has no room for was left out of the file, without a word (invariant 4)."""
    for module in (frontier, terminal_asking):
        monkeypatch.setattr(module, "MAX_FRONTIER", 1)
    assert len(two[0].ledger.frontier()) == 1
    events = events_of(Export(two[0].terminal), two[1])
    assert sum(isinstance(event, BlockFrame) for event in events) == 2


def test_more_authors_than_a_file_has_room_for_are_told_before_it_begins(
    two: list[Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were told after the last block, by an answer that broke off, each time again."""
    monkeypatch.setattr("crdt.courier.MAX_COURIER_AUTHORS", 1)
    carrier, other = two
    with pytest.raises(ControlError, match="Nothing was exported.* of 2\\. The taps are safe"):
        Export(carrier.terminal, {})
    assert Export(carrier.terminal, {other.replica: 2}).deltas == 2
