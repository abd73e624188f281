"""The protocol's test vectors, from fixed seeds. `python -m tests.crdt.vectors` writes vectors.json anew.

A second implementation needs only vectors.json and crdt/README.md.
"""

import json
from pathlib import Path
from typing import Any, Final

from crdt.block import Block, seal, verify
from crdt.certificate import AuthorCertificate, Limits, Role, issue
from crdt.columns import encode
from crdt.courier import CourierWriter
from crdt.cursor import START, Cursor
from crdt.digest import state_digest
from crdt.documents import SignedDocument
from crdt.errors import RefusalCode
from crdt.facts import CERTIFIED, CardId, Context, Delta, Kind, TerminalId
from crdt.frames import (
    Ack,
    BlockFrame,
    CertificateFrame,
    DocumentFrame,
    Heads,
    Hello,
    Message,
    PageFrame,
    Refusal,
    ShortBlockFrame,
    Want,
    encode_frame,
)
from crdt.frontier import GENESIS
from crdt.ledger import Ledger
from crdt.numbering import shorten
from crdt.open_segment import OpenSegment
from crdt.pairing import HubPairing, PairingCode, TerminalPairing
from crdt.pull import Pull
from crdt.revocations import Revocations
from crdt.settlement import HOTLISTED, CardRow, Page, seal_page
from crdt.signing import SigningKey, fleet_id
from crdt.terminal_status import Status
from crdt.wire import Writer

PATH: Final = Path(__file__).with_name("vectors.json")

FLEET_KEY: Final = SigningKey(b"\x01" * 32)
HUB_KEY: Final = SigningKey(b"\x02" * 32)
TERMINAL_KEY: Final = SigningKey(b"\x03" * 32)
FLEET: Final = fleet_id(FLEET_KEY.public_key)
SERIES: Final = bytes(range(16))

NTAG: Final = CardId(bytes.fromhex("04a1b2c3d4e5f6"))
CLASSIC: Final = CardId(bytes.fromhex("deadbeef"))
MORNING: Final = Context("110", "110-0800", "750123", 2, 500)


def certificates() -> tuple[AuthorCertificate, AuthorCertificate]:
    """The hub's and the terminal's."""
    hub_limits = Limits(CERTIFIED, 50_000, 50_000)
    limits = Limits(frozenset({Kind.FARE, Kind.OPENING}), 500, 1000, 100_000)
    return (
        issue(FLEET_KEY, TerminalId(bytes(16)), "depot", Role.HUB, HUB_KEY.public_key, hub_limits),
        issue(
            FLEET_KEY,
            TerminalId(b"\x0c" * 16),
            "bus 12, front door",
            Role.TERMINAL,
            TERMINAL_KEY.public_key,
            limits,
        ),
    )


def deltas() -> list[Delta]:
    """Five facts: cards of three lengths, one thrice, whole seconds, a clock set back by an hour."""
    replica = TERMINAL_KEY.replica
    rows = [
        (NTAG, Kind.OPENING, 500, 1_790_000_000_000, MORNING),
        (NTAG, Kind.FARE, -250, 1_790_000_000_000, MORNING),
        (CLASSIC, Kind.FARE, -250, 1_790_000_065_000, MORNING),
        (NTAG, Kind.FARE, -125, 1_789_996_465_000, Context("110", "110-0800", "750124", 3, 500)),
        (CardId(b"\x0f" * 16), Kind.FARE, 0, 1_789_996_466_000, Context("110", "110-0800", "750124", 3, 500)),
    ]
    return [Delta(replica, seq, *row) for seq, row in enumerate(rows, 1)]


def busy_deltas() -> list[Delta]:
    """300 facts by a rule, enough for a compressed payload: see README.md, "Vectors"."""
    return [
        Delta(
            TERMINAL_KEY.replica,
            seq,
            CardId((seq * 7919 % 251).to_bytes(7, "big")),
            Kind.FARE,
            -250 if seq % 10 else -125,
            1_790_000_000_000 + seq * seq * 100,
            Context("110", f"trip {seq // 100}", f"stop {seq // 7}"),
        )
        for seq in range(1, 301)
    ]


def blocks() -> tuple[Block, Block]:
    """The five facts as two chained blocks."""
    facts = deltas()
    first = seal(TERMINAL_KEY, FLEET, facts[:2], GENESIS)
    return first, seal(TERMINAL_KEY, FLEET, facts[2:], first.hash)


def ledger() -> Ledger:
    """A ledger that holds both blocks."""
    merged = Ledger(FLEET_KEY.public_key)
    merged.merge([block.raw for block in blocks()], certificates())
    return merged


def page() -> Page:
    """A final page with two of the cards, one hotlisted."""
    cards = ledger().cards()
    rows = [CardRow(CLASSIC, *cards[CLASSIC], HOTLISTED, 2), CardRow(NTAG, *cards[NTAG], 0, 1)]
    return seal_page(
        HUB_KEY, FLEET, SERIES, 0, START, Cursor(2, NTAG), rows, 2, ledger().frontier, final=True
    )


def document() -> SignedDocument:
    """A signed document whose body is not automerge, to keep that library's format out of the vectors."""
    return SignedDocument.seal(HUB_KEY, FLEET, "fleet", 3, b"automerge document")


def short_block() -> bytes:
    """The second block, with numbers for the two cards that have one."""
    short = shorten(blocks()[1], {NTAG: 1, CLASSIC: 2})
    assert short
    return short


def revocations() -> Revocations:
    """The terminal's replica, revoked after its second fact."""
    return Revocations({TERMINAL_KEY.replica: 2})


def courier_file() -> bytes:
    """Both blocks as a technician carries them; the terminal exported them."""
    writer = CourierWriter(FLEET, TERMINAL_KEY.replica)
    frontier = ledger().frontier
    parts = [writer.beginning(frontier), writer.message(CertificateFrame(certificates()[1].encode()))]
    parts += [writer.message(BlockFrame(block.raw)) for block in blocks()]
    return b"".join([*parts, writer.end(frontier)])


def messages() -> dict[str, Message]:
    """One of each."""
    _, terminal = certificates()
    first, _ = blocks()
    frontier = ledger().frontier
    return {
        "HELLO": Hello(FLEET, TERMINAL_KEY.replica, frontier),
        "STATUS": Status({"held": 5, "name": "bus 12, front door"}),
        "CERTIFICATE": CertificateFrame(terminal.encode()),
        "BLOCK": BlockFrame(first.raw),
        "PULL": Pull(SERIES, 1, Cursor(2, NTAG, seen=3), {"fleet": 3, "revoked": 0}),
        "ACK": Ack(frontier),
        "PAGE": PageFrame(page().raw),
        "DOCUMENT": DocumentFrame(document().encode()),
        "REFUSAL": Refusal(RefusalCode.CHAIN_BROKEN, "the author's deltas 1 to 2 are missing"),
        "SHORT_BLOCK": ShortBlockFrame(short_block()),
        "WANT": Want({TERMINAL_KEY.replica: 2}, others=True),
        "OPEN_SEGMENT": OpenSegment(first.head, 3, encode(deltas()[2:]).data),
        "HEADS": Heads(frontier),
    }


def pairing() -> dict[str, str]:
    """A whole pairing; each side's entropy is 64 times one byte."""
    spki = b"\x09" * 32
    code = PairingCode.parse("4-7K2M9QX")
    terminal = TerminalPairing(code, spki, lambda count: b"\x11" * count)
    hub = HubPairing(code, spki, lambda count: b"\x22" * count)
    first = terminal.start()
    second = hub.answer(first)
    return {
        "code": str(code),
        "hub_spki_sha256": spki.hex(),
        "terminal_entropy": (b"\x11" * 64).hex(),
        "hub_entropy": (b"\x22" * 64).hex(),
        "terminal_message": first.hex(),
        "hub_message": second.hex(),
        "request": '{"name": "bus 12"}',
        "sealed_request": terminal.seal_request(second, {"name": "bus 12"}).hex(),
        "response": '{"certificate": "00"}',
        "sealed_response": hub.seal_response({"certificate": "00"}).hex(),
    }


def build() -> dict[str, Any]:
    """All vectors as JSON values; bytes in hexadecimal."""
    hub, terminal = certificates()
    first, second = blocks()
    state = ledger()
    keys = {"fleet": FLEET_KEY, "hub": HUB_KEY, "terminal": TERMINAL_KEY}
    seeds = {"fleet": b"\x01", "hub": b"\x02", "terminal": b"\x03"}
    return {
        "keys": {
            name: {
                "seed": (seeds[name] * 32).hex(),
                "public_key": key.public_key.hex(),
                "id": key.replica.hex(),
            }
            for name, key in keys.items()
        },
        "varints": {
            str(value): Writer().varint(value).done().hex() for value in (0, 127, 128, 300, 2**64 - 1)
        },
        "zigzags": {str(value): Writer().zigzag(value).done().hex() for value in (0, -1, 1, -250, 2**63 - 1)},
        "certificates": {"hub": hub.encode().hex(), "terminal": terminal.encode().hex()},
        "deltas": [_delta(delta) for delta in deltas()],
        "payload": encode(deltas()).data.hex(),
        "blocks": [{"raw": block.raw.hex(), "hash": block.hash.hex()} for block in (first, second)],
        "short_block": short_block().hex(),
        "zstd_block": seal(TERMINAL_KEY, FLEET, busy_deltas(), GENESIS).raw.hex(),
        "state": {
            "heads": {replica.hex(): [head.seq, head.hash.hex()] for replica, head in state.frontier.items()},
            "cards": {card.hex(): list(sums) for card, sums in sorted(state.cards().items())},
            "digest": state_digest(sorted(state.frontier.items()), sorted(state.cards().items())).hex(),
        },
        "page": page().raw.hex(),
        "document": document().encode().hex(),
        "revocations": revocations().encode().hex(),
        "courier": courier_file().hex(),
        "frames": {name: encode_frame(message).hex() for name, message in messages().items()},
        "pairing": pairing(),
    }


def _delta(delta: Delta) -> dict[str, Any]:
    context = delta.context
    return {
        "seq": delta.seq,
        "card": delta.card.hex(),
        "kind": delta.kind.name,
        "amount_minor": delta.amount_minor,
        "at_ms": delta.at_ms,
        "route": context.route,
        "trip": context.trip,
        "stop": context.stop,
        "clock_epoch": context.clock_epoch,
        "clock_error_ms": context.clock_error_ms,
    }


def main() -> None:
    """Write the vectors beside this file."""
    for block in blocks():
        verify(block, certificates()[1])
    PATH.write_text(json.dumps(build(), indent=1) + "\n")


if __name__ == "__main__":
    main()
