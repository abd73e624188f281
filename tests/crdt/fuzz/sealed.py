"""Certificates, pages, documents, lists and bodies of frames: mutants signed by who signs the real ones."""

from collections.abc import Sequence
from typing import Final

from crdt.certificate import AuthorCertificate
from crdt.columns import decode, encode
from crdt.cursor import MAX_POSITION, START, Cursor
from crdt.documents import SignedDocument
from crdt.errors import InputRefused
from crdt.facts import MAX_AMOUNT_MINOR, MAX_CARD_NUMBER, CardId, CardState, Kind, ReplicaId
from crdt.frames import Ack, Heads, Want
from crdt.frontier import GENESIS, Frontier, Head
from crdt.open_segment import OpenSegment
from crdt.pull import Pull
from crdt.revocations import Revocations
from crdt.settlement import GONE, CardRow, Page, parse_page, seal_page, verify_page
from crdt.signing import CERTIFICATE_TAG, DOCUMENT_TAG, PAGE_TAG, SIGNATURE_BYTES
from tests.crdt.fuzz.blocks import AUTHOR, CARDS, CHAIN
from tests.crdt.fuzz.mutate import Mutator
from tests.crdt.fuzz.target import Target
from tests.crdt.test_columns import BUSY
from tests.crdt.vectors import FLEET as VECTOR_FLEET
from tests.crdt.world import CERTIFICATES, FLEET, FLEET_KEY, HUB, HUB_KEY

CERTIFICATE_SEEDS: Final = [HUB.encode(), *(certificate.encode() for certificate in CERTIFICATES)]
_HEADS: Final = {ReplicaId(bytes([at]) * 16): Head(at, bytes([at]) * 32) for at in (1, 2, 3)}


def mutant_certificate(mutator: Mutator) -> bytes:
    """A certificate of anything that the fleet's key signed."""
    body = mutator.mutated(mutator.pick(CERTIFICATE_SEEDS)[:-SIGNATURE_BYTES])
    return body + FLEET_KEY.sign(CERTIFICATE_TAG + body)


def check_certificate(raw: bytes) -> bool:
    """Refused, or the only writing of a certificate that answers every question about a delta."""
    try:
        certificate = AuthorCertificate.decode(raw).verify(FLEET_KEY.public_key)
    except InputRefused:
        return False
    assert certificate.encode() == raw
    for kind in Kind:
        for amount in (-MAX_AMOUNT_MINOR, 0, MAX_AMOUNT_MINOR):
            assert certificate.permits(kind, amount) in (True, False)
    certificate.check_allowance(certificate.limits.allowance_minor)
    return True


def page(rows: Sequence[CardRow], heads: Frontier, final: bool, after: Cursor = START) -> bytes:
    """A page of these rows and heads, after a place of an inventory where one is given."""
    until = Cursor(5, rows[-1].card) if rows else Cursor(5, replica=max(heads)) if heads else START
    until = Cursor(0, rows[-1].card, since=after.since) if after.since else until
    return seal_page(HUB_KEY, FLEET, b"s" * 16, 0, after, until, rows, 5, heads, final=final).raw


_ROWS: Final = [
    CardRow(card, -250 * number, 500 * (number % 2), number % 8, number) for number, card in CARDS.items()
]
PAGES: Final = [
    page([], {}, True),
    page(_ROWS[:3], _HEADS, True),
    page(_ROWS[:40], {}, False),
    page([], _HEADS | {ReplicaId(bytes(16)): GONE}, False),
    page(_ROWS[:1], {}, True),
    page(_ROWS[-3:], {}, False, Cursor(0, replica=bytes(16), since=4, seen=4)),
]


def mutant_page(mutator: Mutator) -> bytes:
    """A page of anything that the hub signed."""
    if mutator.chance(4):
        return page_of(mutator)
    body = mutator.mutated(mutator.pick(PAGES)[:-SIGNATURE_BYTES])
    return body + HUB_KEY.sign(PAGE_TAG + body)


def page_of(mutator: Mutator) -> bytes:
    """A page of rows at the borders of what a row may be."""
    cards = list(
        {
            CardId(mutator.source.randbytes(mutator.source.randint(4, 16)))
            for _ in range(mutator.pick((1, 2, 30)))
        }
    )
    rows = [
        CardRow(
            card,
            mutator.number(2**63 - 1) * mutator.pick((1, -1)),
            mutator.number(MAX_AMOUNT_MINOR),
            mutator.source.randrange(8),
            mutator.number(MAX_CARD_NUMBER),
        )
        for card in cards
    ]
    at = max(1, mutator.number(MAX_POSITION))
    until = mutator.pick((Cursor(at, rows[-1].card), Cursor(0, rows[-1].card, since=at)))
    heads, final = mutator.pick(({}, _HEADS)), mutator.pick((False, True))
    return seal_page(HUB_KEY, FLEET, b"s" * 16, 0, START, until, rows, at, heads, final=final).raw


def check_page(raw: bytes) -> bool:
    """Refused, or the only writing of a page."""
    try:
        found = verify_page(parse_page(raw), HUB)
    except InputRefused:
        return False
    assert sealed_again(found) == raw
    assert len({row.card for row in found.rows}) == len(found.rows)
    assert all(isinstance(row.state, CardState) for row in found.rows)
    return True


def sealed_again(found: Page) -> bytes:
    """The page as the hub makes it of its parts."""
    parts = (found.series, found.base, found.after, found.until, found.rows, found.position, found.heads)
    return seal_page(HUB_KEY, found.fleet, *parts, final=found.final).raw


def mutant_document(mutator: Mutator) -> bytes:
    """A signed document of any name, number and body."""
    seed = SignedDocument.seal(
        HUB_KEY, mutator.pick((FLEET, FLEET, VECTOR_FLEET)), "fleet", 3, b"body" * 9
    ).encode()
    body = mutator.mutated(seed[:-SIGNATURE_BYTES])
    return body + HUB_KEY.sign(DOCUMENT_TAG + body)


def check_document(raw: bytes) -> bool:
    """Refused, or the only writing of a signed document."""
    try:
        document = SignedDocument.decode(raw).verify(HUB)
    except InputRefused:
        return False
    assert document.encode() == raw
    return True


def mutant_revocations(mutator: Mutator) -> bytes:
    """A list of revocations, or nearly."""
    listed = {
        ReplicaId(mutator.source.randbytes(16)): mutator.number(2**48 - 1)
        for _ in range(mutator.pick((0, 1, 5)))
    }
    return mutator.mutated(Revocations(listed).encode())


def check_revocations(raw: bytes) -> bool:
    """Refused, or the only writing of a list."""
    try:
        listed = Revocations.decode(raw)
    except InputRefused:
        return False
    assert listed.encode() == raw
    return True


Strict = Want | OpenSegment | Heads | Ack | Pull
STRICT: Final[tuple[type[Strict], ...]] = (Want, OpenSegment, Heads, Ack, Pull)
_OPEN: Final = encode(BUSY[:5]).data
_BODIES: Final = {
    Want: [Want({}).body(), Want({replica: head.seq for replica, head in _HEADS.items()}, True).body()],
    OpenSegment: [OpenSegment(Head(0, GENESIS), 5, _OPEN).body(), OpenSegment(CHAIN[0].head, 0, b"").body()],
    Heads: [Heads(_HEADS).body()],
    Ack: [Ack(_HEADS).body(), Ack({}).body()],
    Pull: [
        Pull().body(),
        Pull(b"s" * 16, 5, Cursor(6, b"card", seen=7), {"fleet": 3, "revoked": 0}).body(),
        Pull(b"s" * 16, 5, Cursor(6, replica=bytes(16), seen=6)).body(),
        Pull(b"s" * 16, 0, Cursor(0, b"card", since=6, seen=300)).body(),
    ],
}


def mutant_body(mutator: Mutator) -> bytes:
    """The type of a message and its body."""
    kind = mutator.pick(STRICT)
    return bytes([kind.TYPE]) + mutator.mutated(mutator.pick(_BODIES[kind]))


def check_body(raw: bytes) -> bool:
    """Refused, or the only writing of a message; an open segment's facts too."""
    kind = next(kind for kind in STRICT if raw[0] == kind.TYPE)
    try:
        message = kind.from_body(raw[1:])
    except InputRefused:
        return False
    assert message.body() == raw[1:]
    if isinstance(message, OpenSegment) and message.count:
        try:
            facts = decode(message.payload, message.count).deltas(AUTHOR.key.replica, message.after.seq + 1)
        except InputRefused:
            return False
        assert encode(facts).data == message.payload
    return True


TARGETS: Final = [
    Target("certificate", mutant_certificate, check_certificate, weight=8),
    Target("page", mutant_page, check_page, weight=12),
    Target("signed-document", mutant_document, check_document, weight=4),
    Target("revocations", mutant_revocations, check_revocations, weight=4),
    Target("frame-body", mutant_body, check_body, weight=12),
]
