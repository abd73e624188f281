"""Which vehicle a peer is on, as it says itself in its answer: a record on the LAN may be anybody's."""

from collections.abc import Mapping
from urllib.parse import quote, unquote

from crdt.facts import text_fits
from crdt.protocol import VEHICLE_HEADER


def vehicle_header(vehicle: str) -> dict[str, str]:
    """The header of an answer; "" is none."""
    return {VEHICLE_HEADER: quote(vehicle)}


def vehicle_in(headers: Mapping[str, str]) -> str | None:
    """What the headers of an answer say; None for nothing, or what is no vehicle."""
    try:
        vehicle = unquote(headers[VEHICLE_HEADER], errors="strict")
    except (KeyError, UnicodeDecodeError):
        return None
    return vehicle if text_fits(vehicle) else None
