"""Card descriptions: `ntag215:04A1B2C3D4E5F6`, `classic:DEADBEEF` and so on, from words to cards."""

from collections.abc import Callable

from hardware.cards import UID_LENGTHS, PresentedCard
from hardware.emulator.air import SAK_INCOMPLETE, SAK_ISO_DEP
from hardware.emulator.card import Card, Silent
from hardware.emulator.classic import ClassicCard
from hardware.emulator.type2 import LAYOUTS, Type2Tag
from hardware.errors import BadSpec

KINDS = (*LAYOUTS, "classic", "classic4k", "iso14443a")

_MAX_ATS_BYTES = 62
"""The PN532 tells cards that it takes frames of 64 bytes, CRC included."""


def parse_card(spec: str) -> Card:
    """A new card. Raises BadSpec.

    KIND:UID, with 7 bytes of hex for ultralight, ultralight-ev1, ntag213, ntag215 and ntag216, 4 or 7 for
    classic and classic4k; or iso14443a:UID:ATQA:SAK[:ATS] for any other, ATQA as the PN532 gives it (0044)
    and ATS with its length byte. Hex may be in either case.
    """
    kind, *fields = spec.strip().split(":")
    make = _MAKERS.get(kind)
    if make is None:
        raise BadSpec(f'"{kind}" is no kind of card; known: {", ".join(KINDS)}.')
    try:
        return make(kind, [bytes.fromhex(field) for field in fields])
    except ValueError as error:
        raise BadSpec(f'"{spec}" cannot be read: {error}.') from error


def _type2(kind: str, fields: list[bytes]) -> Card:
    (uid,) = _exactly(fields, "a UID of 14 hex digits", 7)
    return Card(PresentedCard(uid, b"\x00\x44", 0x00), Type2Tag(LAYOUTS[kind], uid))


def _classic(kind: str, fields: list[bytes]) -> Card:
    (uid,) = _exactly(fields, "a UID of 8 or 14 hex digits", 4, 7)
    sak, blocks, low = (0x18, 256, 0x02) if kind == "classic4k" else (0x08, 64, 0x04)
    double = 0x40 if len(uid) == 7 else 0x00
    return Card(PresentedCard(uid, bytes((0, low | double)), sak), ClassicCard(uid, sak, blocks))


def _generic(_kind: str, fields: list[bytes]) -> Card:
    if len(fields) not in (3, 4):
        raise ValueError("expected iso14443a:UID:ATQA:SAK or iso14443a:UID:ATQA:SAK:ATS")
    uid, atqa, sak, *rest = fields
    ats = rest[0] if rest else b""
    if len(uid) not in UID_LENGTHS:
        raise ValueError("the UID has 8, 14 or 20 hex digits")
    if len(atqa) != 2 or len(sak) != 1:
        raise ValueError("ATQA has 4 hex digits and SAK 2")
    if sak[0] & SAK_INCOMPLETE:
        raise ValueError("SAK bit 04 would say that the UID goes on")
    if bool(ats) != bool(sak[0] & SAK_ISO_DEP):
        raise ValueError("an ATS goes with SAK bit 20, and only with that")
    if ats and (ats[0] != len(ats) or len(ats) > _MAX_ATS_BYTES):
        raise ValueError(f"the ATS starts with its own length, at most {_MAX_ATS_BYTES}")
    return Card(PresentedCard(uid, atqa, sak[0], ats), Silent())


def _exactly(fields: list[bytes], expected: str, *lengths: int) -> list[bytes]:
    if len(fields) != 1 or len(fields[0]) not in lengths:
        raise ValueError(f"expected {expected}")
    return fields


_MAKERS: dict[str, Callable[[str, list[bytes]], Card]] = {
    **dict.fromkeys(LAYOUTS, _type2),
    "classic": _classic,
    "classic4k": _classic,
    "iso14443a": _generic,
}
