"""What a hub may answer wrongly, and by which code it is refused."""

import dataclasses
import gzip
from collections.abc import Callable

from aiohttp import web

from crdt.cursor import START, Cursor
from crdt.documents import FLEET_DOCUMENT, TERMINAL_DOCUMENT, SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import CardId, TerminalId
from crdt.frames import (
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Hello,
    Message,
    PageFrame,
    Refusal,
    encode_frame,
)
from crdt.protocol import CONTENT_TYPE
from crdt.settlement import CardRow, seal_page
from crdt.signing import SigningKey
from crdt.terminal_document import HUB_EDITS, TerminalDocument
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES, document
from tests.edge.testhub import answer

CARD = CardId(bytes.fromhex("04A1B2C3D4E5F6"))
ROW = CardRow(CARD, 5_000, 0)
SERIES = b"S" * 16

Lie = Callable[[Fleet, list[Message]], web.Response]


def raw(body: bytes, content_type: str = CONTENT_TYPE, **headers: str) -> web.Response:
    return web.Response(body=body, content_type=content_type, headers=headers)


def hello(fleet: Fleet, *rest: Message, **changes: object) -> web.Response:
    """An answer of the fleet's hub with these messages."""
    first = Hello(fleet.id, fleet.hub_key.replica)
    return answer([dataclasses.replace(first, **changes), *rest])  # type: ignore[arg-type]  # test data


def page(fleet: Fleet, key: SigningKey, after: Cursor = START) -> PageFrame:
    """A final page that gives the card money, signed with `key`."""
    until = Cursor(3, CARD)
    return PageFrame(seal_page(key, fleet.id, SERIES, 0, after, until, [ROW], 3, final=True).raw)


def flipped(message: PageFrame | DocumentFrame, at: int) -> Message:
    body = bytearray(message.raw)
    body[at] ^= 1
    return type(message)(bytes(body))


def generous(fleet: Fleet, key: SigningKey, name: str = FLEET_DOCUMENT) -> SignedDocument:
    """A document in which every ride is free."""
    free = document(fleet, dataclasses.replace(FARES, flat_fare_minor=0), 9)
    return SignedDocument.seal(key, fleet.id, name, 9, free.body)


def bad_fares(fleet: Fleet) -> DocumentFrame:
    return DocumentFrame(SignedDocument.seal(fleet.hub_key, fleet.id, FLEET_DOCUMENT, 9, b"garbage").encode())


def route_99(fleet: Fleet, key: SigningKey) -> DocumentFrame:
    """Settings of another terminal."""
    new = TerminalDocument.new(TerminalId(b"?" * 16)).edited(HUB_EDITS, {"route": "99"})
    return DocumentFrame(
        SignedDocument.seal(key, fleet.id, TERMINAL_DOCUMENT, new.version, new.body).encode()
    )


def terminal_certificate(fleet: Fleet) -> CertificateFrame:
    return CertificateFrame(fleet.enrol().certificate.encode())


UNREADABLE: dict[str, tuple[RefusalCode, Lie]] = {
    "garbage": (RefusalCode.MALFORMED, lambda fleet, honest: raw(b"\xff" * 100)),
    "nothing": (RefusalCode.MALFORMED, lambda fleet, honest: raw(b"")),
    "html": (RefusalCode.MALFORMED, lambda fleet, honest: raw(b"<html>hotel Wi-Fi</html>", "text/html")),
    "truncated": (RefusalCode.MALFORMED, lambda fleet, honest: raw(bytes(answer(honest).body)[:-1])),  # type: ignore[arg-type]  # bytes
    "compressed": (
        RefusalCode.MALFORMED,
        lambda fleet, honest: raw(gzip.compress(b"\0" * 10**7), **{"Content-Encoding": "gzip"}),
    ),
    "oversized": (
        RefusalCode.TOO_LARGE,
        lambda fleet, honest: raw(encode_frame(honest[0]) + encode_frame(PageFrame(b"x" * 300_000)) * 15),
    ),
    "endless": (
        RefusalCode.TOO_LARGE,
        lambda fleet, honest: raw(
            encode_frame(honest[0]) + encode_frame(Refusal(RefusalCode.REVOKED, "x" * 500)) * 9_000
        ),
    ),
    "a huge frame announced": (
        RefusalCode.TOO_LARGE,
        lambda fleet, honest: raw(encode_frame(honest[0]) + b"\x07\xff\xff\xff\xff"),
    ),
    "no hello": (RefusalCode.MALFORMED, lambda fleet, honest: raw(encode_frame(page(fleet, fleet.hub_key)))),
    "a foreign hello": (RefusalCode.FOREIGN_FLEET, lambda fleet, honest: hello(Fleet(7))),
    "a later protocol": (RefusalCode.UNSUPPORTED, lambda fleet, honest: hello(fleet, protocol=2)),
}
LIES: dict[str, tuple[RefusalCode, Lie]] = {
    "a foreign page": (
        RefusalCode.UNKNOWN_AUTHOR,
        lambda fleet, honest: hello(fleet, page(Fleet(7), Fleet(7).hub_key)),
    ),
    "a page of another fleet signed by our hub": (
        RefusalCode.FOREIGN_FLEET,
        lambda fleet, honest: hello(fleet, page(Fleet(7), fleet.hub_key)),
    ),
    "a page signed by a stranger": (
        RefusalCode.UNKNOWN_AUTHOR,
        lambda fleet, honest: hello(fleet, page(fleet, SigningKey(b"?" * 32))),
    ),
    "a page with a wrong signature": (
        RefusalCode.BAD_SIGNATURE,
        lambda fleet, honest: hello(fleet, flipped(page(fleet, fleet.hub_key), -1)),
    ),
    "an altered page": (
        RefusalCode.BAD_SIGNATURE,
        lambda fleet, honest: hello(fleet, flipped(page(fleet, fleet.hub_key), 33)),
    ),
    "a page from elsewhere": (
        RefusalCode.CHAIN_BROKEN,
        lambda fleet, honest: hello(fleet, page(fleet, fleet.hub_key, after=Cursor(2, b""))),
    ),
    "a terminal's certificate as a hub's": (
        RefusalCode.NOT_PERMITTED,
        lambda fleet, honest: hello(fleet, terminal_certificate(fleet)),
    ),
    "a foreign hub's certificate": (
        RefusalCode.FOREIGN_FLEET,
        lambda fleet, honest: hello(fleet, CertificateFrame(Fleet(7).hub_certificate.encode())),
    ),
    "fares by a stranger": (
        RefusalCode.UNKNOWN_AUTHOR,
        lambda fleet, honest: hello(fleet, DocumentFrame(generous(fleet, SigningKey(b"?" * 32)).encode())),
    ),
    "fares with a wrong signature": (
        RefusalCode.BAD_SIGNATURE,
        lambda fleet, honest: hello(
            fleet, flipped(DocumentFrame(generous(fleet, fleet.hub_key).encode()), -1)
        ),
    ),
    "fares that cannot be read": (
        RefusalCode.MALFORMED,
        lambda fleet, honest: hello(fleet, bad_fares(fleet)),
    ),
    "a document nobody asked for": (
        RefusalCode.NOT_PERMITTED,
        lambda fleet, honest: hello(fleet, DocumentFrame(generous(fleet, fleet.hub_key, "secrets").encode())),
    ),
    "another terminal's settings": (
        RefusalCode.MALFORMED,
        lambda fleet, honest: hello(fleet, route_99(fleet, fleet.hub_key)),
    ),
    "settings by a stranger": (
        RefusalCode.UNKNOWN_AUTHOR,
        lambda fleet, honest: hello(fleet, route_99(fleet, SigningKey(b"?" * 32))),
    ),
    "settings that are fares": (
        RefusalCode.MALFORMED,
        lambda fleet, honest: hello(
            fleet, DocumentFrame(generous(fleet, fleet.hub_key, TERMINAL_DOCUMENT).encode())
        ),
    ),
    "blocks nobody asked for": (RefusalCode.MALFORMED, lambda fleet, honest: hello(fleet, BlockFrame(b"x"))),
}
