"""Settlement pages: signed, resumable, exact at the end whatever changes meanwhile (invariants 6, 8)."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.cursor import MAX_POSITION, START, Cursor, beginning, read_cursor, write_cursor
from crdt.errors import (
    BadSignature,
    ForeignFleet,
    InputRefused,
    Malformed,
    MisuseError,
    NotPermitted,
    TooLarge,
    UnknownAuthor,
    Unsupported,
)
from crdt.facts import MAX_AMOUNT_MINOR, MAX_CARD_NUMBER, MAX_SEQ, CardId, CardState, FleetId, ReplicaId
from crdt.frames import MAX_FRAME_BYTES, PageFrame, encode_frame
from crdt.frontier import Head
from crdt.protocol import MAX_PAGE_BYTES, MAX_PAGE_HEADS, MAX_PAGE_ROWS
from crdt.settlement import (
    GONE,
    HOTLISTED,
    NO_SERIES,
    OVERDRAWN,
    UNMET,
    CardRow,
    Page,
    parse_page,
    seal_page,
    verify_page,
)
from crdt.wire import Reader, Writer
from tests.crdt.world import FLEET, HUB, HUB_KEY, TERMINALS, any_card

SERIES = b"series".ljust(16)
HEADS = {ReplicaId(bytes([at]) * 16): Head(at, bytes(32)) for at in (1, 2)}
ROWS = [CardRow(CardId(bytes([at]) * 7), -250 * at, 500, HOTLISTED * (at == 2)) for at in (1, 2, 3)]


def page(rows: Sequence[CardRow] = ROWS, heads: dict[ReplicaId, Head] = HEADS, **parts: Any) -> Page:
    after = parts.pop("after", Cursor(4))
    last = Cursor(6, replica=max(heads)) if heads else after
    until = Cursor(6, rows[-1].card) if rows else last
    fields: dict[str, Any] = {"series": SERIES, "base": 3, "until": until, "position": 6, "final": True}
    fields |= parts
    return seal_page(HUB_KEY, FLEET, after=after, rows=rows, heads=heads, **fields)


class HubModel:
    """The hub's rule in a few lines: cards and heads in one order, by the place of their last change.

    Of a full load, what had it when that began comes first, by its id: so many are looked at for a page.
    """

    def __init__(self) -> None:
        self.position = 0
        self.changed: dict[CardId, tuple[int, CardRow]] = {}
        self.heads: dict[ReplicaId, tuple[int, Head]] = {}

    def change(self, cards: Sequence[int]) -> None:
        self.position += 1
        for number in cards:
            card = CardId(number.to_bytes(4, "big"))
            self.changed[card] = (self.position, CardRow(card, self.position * 100 + number, 0))
        for author in {number % 3 for number in cards}:
            gone = (self.position + author) % 4 == 0
            head = GONE if gone else Head(self.position, bytes(32))
            self.heads[ReplicaId(bytes([author]) * 16)] = self.position, head

    def state(self) -> dict[CardId, CardRow]:
        return {card: row for card, (_, row) in self.changed.items()}

    def page(self, base: int, after: Cursor, limit: int) -> Page:
        changes = [(at, Cursor(at, card)) for card, (at, _) in self.changed.items()]
        changes += [(at, Cursor(at, replica=replica)) for replica, (at, _) in self.heads.items()]
        since = after.since or self.position
        inventory = base == after.position == 0
        if inventory:
            changes = [(at, Cursor(0, place.card, place.replica, since)) for at, place in changes]
        left = sorted((place, at) for at, place in changes if place > after)
        looked = left[:limit]
        part = [place for place, at in looked if not inventory or at <= since]
        until = looked[-1][0] if looked else after
        if inventory and looked == left and since < self.position:
            until = beginning(since)
        return seal_page(
            HUB_KEY,
            FLEET,
            SERIES,
            base,
            after,
            until,
            [self.changed[CardId(place.card)][1] for place in part if place.card],
            self.position,
            {
                ReplicaId(place.replica): self.heads[ReplicaId(place.replica)][1]
                for place in part
                if place.replica
            },
            final=looked == left and (not inventory or since == self.position),
        )


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4), max_size=5),
    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4), max_size=4),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_invariant_6_what_is_staged_at_the_final_page_is_exactly_the_state_at_its_position(
    before: list[list[int]], during: list[list[int]], limit: int, installed_after: int
) -> None:
    """Cards and heads change while a terminal is paging; no snapshot is kept, and yet it ends exact."""
    hub = HubModel()
    installed: dict[CardId, CardRow] = {}
    heads: dict[ReplicaId, Head] = {}
    base = 0
    for step, cards in enumerate(before):
        hub.change(cards)
        if step == installed_after:
            installed, base = hub.state(), hub.position
            heads = {replica: head for replica, (_, head) in hub.heads.items()}
    staged: dict[CardId, CardRow] = {}
    cursor = beginning(base)
    for _ in range(100):
        got = verify_page(parse_page(hub.page(base, cursor, limit).raw), HUB)
        assert got.continues(SERIES, base, cursor)
        assert got.restarts is (base == 0 and cursor == START)
        staged |= {row.card: row for row in got.rows}
        heads |= got.heads
        cursor = got.until
        if got.final:
            break
        if during:
            hub.change(during.pop())
    assert installed | staged == hub.state()
    assert got.position == hub.position
    assert heads == {replica: head for replica, (_, head) in hub.heads.items()}


@given(
    st.lists(any_card, unique=True, max_size=20),
    st.data(),
    st.dictionaries(
        st.binary(min_size=16, max_size=16).map(ReplicaId),
        st.builds(Head, st.integers(1, MAX_SEQ), st.binary(min_size=32, max_size=32)) | st.just(GONE),
        max_size=3,
    ),
)
def test_a_page_reads_as_sealed(
    cards: list[CardId], data: st.DataObject, heads: dict[ReplicaId, Head]
) -> None:
    rows = [
        CardRow(
            card,
            data.draw(st.integers(-(2**63), 2**63 - 1)),
            data.draw(st.integers(0, MAX_AMOUNT_MINOR)),
            data.draw(st.integers(0, HOTLISTED | UNMET | OVERDRAWN)),
            data.draw(st.integers(0, MAX_CARD_NUMBER)),
        )
        for card in cards
    ]
    made = page(rows, heads)
    found = verify_page(parse_page(made.raw), HUB)
    assert found == made
    assert found.rows == tuple(rows)
    assert list(found.heads) == list(made.heads)
    for row in found.rows:
        assert row.state == CardState(row.sum_minor, row.opening_minor)
        assert row.hotlisted is bool(row.flags & HOTLISTED or row.flags & OVERDRAWN)


def test_every_truncation_and_flipped_bit_is_refused() -> None:
    raw = page().raw
    changed = [raw[:end] for end in range(len(raw))] + [raw + b"\0"]
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        changed.append(bytes(flipped))
    for each in changed:
        with pytest.raises(InputRefused):
            verify_page(parse_page(each), HUB)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    for raw in (data, page().raw[:57] + data):
        with pytest.raises(InputRefused):
            verify_page(parse_page(raw), HUB)


def test_huge_declared_counts_take_no_memory() -> None:
    head = page([], {}).raw[:56]
    tracemalloc.start()
    try:
        for counts in (b"\xff\xff\xff\xff\x0f", b"\x80\x20\x01\x07", b"\x00\xff\xff\xff\x0f"):
            with pytest.raises(InputRefused):
                parse_page(head + counts + bytes(80))
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()
    with pytest.raises(TooLarge):
        parse_page(bytes(MAX_PAGE_BYTES + 1))
    with pytest.raises(Unsupported):
        parse_page(b"\x02" + page().raw[1:])


def test_only_the_fleets_hub_settles() -> None:
    """A terminal's certificate, another hub's, or another fleet's does not do."""
    made = page()
    with pytest.raises(UnknownAuthor):
        verify_page(made, TERMINALS[0].certificate)
    with pytest.raises(ForeignFleet):
        verify_page(replace(made, fleet=FleetId(bytes(16))), HUB)
    with pytest.raises(BadSignature):
        verify_page(replace(made, raw=made.raw[:-65] + b"!" + made.raw[-64:]), HUB)
    author = TERMINALS[0]
    own = seal_page(author.key, FLEET, SERIES, 0, START, START, [], 1, final=True)
    with pytest.raises(NotPermitted):
        verify_page(own, author.certificate)


NOT_REACHED = [
    Cursor(4, b"card"),
    Cursor(4, b"card", seen=3),
    Cursor(4, replica=bytes(16)),
    Cursor(4, seen=2),
    Cursor(0, b"card", since=4),
    Cursor(0, b"card", since=4, seen=3),
    START._replace(seen=1),
]


@pytest.mark.parametrize("cursor", NOT_REACHED)
def test_a_cursor_is_no_further_than_the_hub_was_when_it_gave_it(cursor: Cursor) -> None:
    """Only the beginning after a position is known without a page."""
    writer = Writer()
    write_cursor(writer, cursor)
    with pytest.raises(Malformed):
        read_cursor(Reader(writer.done()))


BAD_PARTS: list[dict[str, Any]] = [
    {"series": NO_SERIES},
    {"base": 7},
    {"position": MAX_POSITION + 1},
    {"until": Cursor(7, b"card")},
    {"until": Cursor(4, b"")},
    {"rows": [], "heads": {}, "until": Cursor(5, b"card")},
    {"rows": [], "heads": {}, "base": 0, "until": Cursor(0, b"card", since=6), "after": START},
    {
        **{"rows": [], "heads": {}, "base": 0, "final": False},
        **{"until": Cursor(0, b"card", since=6), "after": Cursor(0, b"card", since=6, seen=6)},
    },
    {"rows": [], "heads": {}, "final": False},
    {"until": Cursor(0, b"card", since=6), "after": START},
    {"base": 0, "until": Cursor(0, b"card"), "after": START},
    {"base": 0, "until": Cursor(0, b"card", since=7), "after": START},
    {"base": 0, "until": Cursor(0, b"card", since=6), "after": Cursor(0, b"car0", since=5, seen=5)},
    {"base": 0, "until": Cursor(0, b"card", since=6), "after": Cursor(0, b"care", since=6, seen=6)},
    {"base": 0, "rows": [], "heads": {}, "until": Cursor(6), "after": Cursor(0, b"card", since=4, seen=4)},
    *({"after": cursor} for cursor in (*NOT_REACHED, Cursor(4, seen=7))),
    {"heads": {ReplicaId(bytes(16)): Head(0, b"\x01" * 32)}},
    {"heads": {ReplicaId(at.to_bytes(16, "big")): Head(1, bytes(32)) for at in range(MAX_PAGE_HEADS + 1)}},
    {"rows": [ROWS[0], ROWS[0]]},
    {"rows": [ROWS[0]._replace(sum_minor=2**63)]},
    {"rows": [ROWS[0]._replace(opening_minor=MAX_AMOUNT_MINOR + 1)]},
    {"rows": [ROWS[0]._replace(opening_minor=-1)]},
    {"rows": [ROWS[0]._replace(flags=8)]},
    {"rows": [ROWS[0]._replace(number=-1)]},
    {"rows": [ROWS[0]._replace(number=MAX_CARD_NUMBER + 1)]},
    {"rows": [CardRow(CardId(at.to_bytes(4, "big")), 0, 0) for at in range(MAX_PAGE_ROWS + 1)]},
]


@pytest.mark.parametrize("parts", BAD_PARTS)
def test_a_page_whose_parts_contradict_is_not_sealed(parts: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        page(**parts)


@pytest.mark.parametrize(
    ("at", "is_now", "becomes"),
    [
        pytest.param(1 + 16 + 16 + 16 + 1 + 4 + 11, 6, 2, id="a position before the base"),
        pytest.param(-64 - (1 + 2 * 49) - 1 - 2, 1, 8, id="flags that nobody knows"),
    ],
)
def test_a_page_whose_parts_contradict_is_malformed_whoever_signed_it(
    at: int, is_now: int, becomes: int
) -> None:
    """From a hub with a bug: found by parsing, before anybody looks at the signature."""
    raw = bytearray(page().raw)
    assert raw[at] == is_now
    raw[at] = becomes
    with pytest.raises(Malformed):
        parse_page(bytes(raw))


def test_the_largest_page_fits_one_frame() -> None:
    rows = [
        CardRow(CardId(at.to_bytes(16, "big")), -(2**63), MAX_AMOUNT_MINOR, 7, MAX_CARD_NUMBER)
        for at in range(MAX_PAGE_ROWS)
    ]
    heads = {ReplicaId(at.to_bytes(16, "big")): Head(MAX_SEQ, b"\xff" * 32) for at in range(MAX_PAGE_HEADS)}
    last = Cursor(MAX_POSITION, rows[-1].card)
    made = seal_page(
        HUB_KEY,
        FLEET,
        SERIES,
        MAX_POSITION,
        Cursor(MAX_POSITION, bytes(16), seen=MAX_POSITION),
        last,
        rows,
        MAX_POSITION,
        heads,
        final=True,
    )
    assert len(made.raw) <= MAX_PAGE_BYTES
    assert len(encode_frame(PageFrame(made.raw))) <= MAX_FRAME_BYTES
    assert parse_page(made.raw) == made


def test_a_million_cards_first_load_takes_at_most_25_bytes_a_card() -> None:
    """On one full page: 7-byte ids, balances up to 100.00, half with an opening, numbers of three bytes."""
    rows = [
        CardRow(CardId(at.to_bytes(7, "big")), at * 7 % 10_000 - 2000, 500 * (at % 2), 0, 900_000 + at)
        for at in range(MAX_PAGE_ROWS)
    ]
    assert len(page(rows, {}, final=False).raw) / MAX_PAGE_ROWS < 15
