"""Which vehicle a peer says to be on."""

import pytest

from crdt.protocol import VEHICLE_HEADER
from edge.vehicle_header import vehicle_header, vehicle_in


@pytest.mark.parametrize("vehicle", ["", "bus 12", "Wagen 7, große Türe", "100 % 公交"])
def test_what_is_said_is_heard(vehicle: str) -> None:
    header = vehicle_header(vehicle)
    assert header[VEHICLE_HEADER].isascii()
    assert vehicle_in(header) == vehicle


@pytest.mark.parametrize("value", ["%ff", "a%0ab", "x" * 65])
def test_what_is_no_vehicle_is_nothing_said(value: str) -> None:
    """Invariant 8: a peer's word is input like any other."""
    assert vehicle_in({VEHICLE_HEADER: value}) is None
    assert vehicle_in({}) is None
