"""A settlement: the hub's signed statement "these balances include everything up to this frontier", in pages.

The hub numbers its changes with a position that only grows. It gives what has changed after a cursor, cards
and heads in one order: by the position of each one's last change, at one position heads by replica and then
cards by id. When nothing is left the page is final and carries the position reached. What changes while one
is paging, card or head, comes again at its later position, before the final page: what is staged when the
final page arrives is exactly the state at its position. No snapshot is kept.

A page answers the terminal's (series, base, cursor). When the hub cannot continue there (another series, or
what is installed or staged is of a position it has not made, because it was replaced or restored), it starts
a full load: base 0, after START. That begins with an inventory of what had its last change until the position
of its start, heads by replica and then cards by id, in the order in which both sides keep them; and goes on
with what has changed since.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, NamedTuple

from crdt.card_column import read_card_ids, write_card_ids
from crdt.certificate import AuthorCertificate, Role
from crdt.cursor import (
    MAX_POSITION,
    START,
    Cursor,
    beginning,
    in_inventory,
    is_reached,
    read_cursor,
    write_cursor,
)
from crdt.errors import (
    BadSignature,
    ForeignFleet,
    Malformed,
    MisuseError,
    NotPermitted,
    TooLarge,
    UnknownAuthor,
    Unsupported,
)
from crdt.facts import (
    ID_BYTES,
    MAX_AMOUNT_MINOR,
    MAX_CARD_NUMBER,
    CardId,
    CardState,
    FleetId,
    ReplicaId,
)
from crdt.frontier import GENESIS, Frontier, Head, read_frontier, write_frontier
from crdt.planes import read_numbers, write_numbers
from crdt.protocol import MAX_PAGE_BYTES, MAX_PAGE_HEADS, MAX_PAGE_ROWS
from crdt.signing import PAGE_TAG, SIGNATURE_BYTES, SigningKey, verify
from crdt.wire import Reader, Writer, unzigzag, zigzag

VERSION: Final = 1
HOTLISTED: Final = 1  # CardRow.flags: an operator blocked the card
UNMET: Final = 2  # no fact mentions the card; it was only hotlisted once
OVERDRAWN: Final = 4  # the balance is lower than the fleet's rules let it get; goes when it is paid
REFUSED: Final = HOTLISTED | OVERDRAWN  # the card is to be refused
_ALL_FLAGS: Final = REFUSED | UNMET
GONE: Final = Head(0, GENESIS)  # a head that has changed: nothing of the replica counts any more
SERIES_BYTES: Final = 16
NO_SERIES: Final = bytes(SERIES_BYTES)  # what a terminal without a settlement asks with


class CardRow(NamedTuple):
    """One card as settled."""

    card: CardId
    sum_minor: int
    opening_minor: int
    flags: int = 0
    number: int = 0  # the hub's short name of the card, from 1; 0 where it has none

    @property
    def state(self) -> CardState:
        """The card's sums."""
        return CardState(self.sum_minor, self.opening_minor)

    @property
    def hotlisted(self) -> bool:
        """Whether the card is to be refused, for whichever reason."""
        return bool(self.flags & REFUSED)


def card_rows(rows: Iterable[Sequence[Any]]) -> Iterator[CardRow]:
    """`CardRow(*row)` of each, without a call of a Python function for each of a million cards."""
    return map(partial(tuple.__new__, CardRow), rows)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a settlement. Believe it only after `verify_page`."""

    fleet: FleetId
    series: bytes  # 16 bytes, random for each new hub ledger: positions of different series are unrelated
    base: int  # the position the terminal has installed; 0 for a full load
    after: Cursor
    until: Cursor
    rows: tuple[CardRow, ...]  # at most MAX_PAGE_ROWS, each card once
    final: bool
    position: int  # the hub's; on a final page the position that becomes installed
    heads: Frontier  # at most MAX_PAGE_HEADS that have changed; GONE where nothing is left
    signer: ReplicaId
    signature: bytes = b""
    raw: bytes = field(default=b"", compare=False, repr=False)

    @property
    def restarts(self) -> bool:
        """Whether the page begins a full load: what was staged before is void."""
        return self.base == 0 and self.after == START

    @property
    def ends_inventory(self) -> bool:
        """Whether nothing of the inventory is left, and changes since follow; such a page may be empty."""
        return self.after.since > 0 and self.until.place == beginning(self.after.since)

    @property
    def begun(self) -> Cursor:
        """Where one stands who has taken a part of it, and may have to ask for it again."""
        return self.after if self.restarts else self.after._replace(seen=self.position)

    def continues(self, series: bytes, base: int, staged: Cursor) -> bool:
        """Whether the page goes on exactly where a terminal stands: what it installed and what it staged."""
        return (self.series, self.base, self.after) == (series, base, staged)


def seal_page(
    key: SigningKey,
    fleet: FleetId,
    series: bytes,
    base: int,
    after: Cursor,
    until: Cursor,
    rows: Sequence[CardRow],
    position: int,
    heads: Frontier | None = None,
    *,
    final: bool,
) -> Page:
    """A signed page. `until`: the last place it gives, or `after`.

    Raises MisuseError when its parts contradict.
    """
    unsigned = Page(
        fleet=fleet,
        series=series,
        base=base,
        after=after,
        until=after if until.place == after.place else until._replace(seen=position),
        rows=tuple(rows),
        final=final,
        position=position,
        heads=dict(sorted((heads or {}).items())),
        signer=key.replica,
    )
    problem = _problem(unsigned)
    if problem:
        raise MisuseError(problem)
    body = _body(unsigned)
    signature = key.sign(PAGE_TAG + body)
    return replace(unsigned, signature=signature, raw=body + signature)


def parse_page(raw: bytes) -> Page:
    """The page in `raw`, not yet verified. Raises Malformed, TooLarge or Unsupported."""
    if len(raw) > MAX_PAGE_BYTES:
        raise TooLarge(f"a settlement page has at most {MAX_PAGE_BYTES} bytes")
    reader = Reader(raw)
    if reader.uint(1) != VERSION:
        raise Unsupported("the settlement page has a version this program does not know")
    page = Page(
        fleet=FleetId(reader.raw(ID_BYTES)),
        signer=ReplicaId(reader.raw(ID_BYTES)),
        series=reader.raw(SERIES_BYTES),
        base=reader.varint(0, MAX_POSITION),
        after=read_cursor(reader),
        until=read_cursor(reader),
        position=reader.varint(0, MAX_POSITION),
        final=bool(reader.uint(1, 0, 1)),
        rows=_read_rows(reader),
        heads=read_frontier(reader, MAX_PAGE_HEADS, least_seq=0),
        signature=reader.raw(SIGNATURE_BYTES),
        raw=raw,
    )
    reader.end()
    problem = _problem(page)
    if problem:
        raise Malformed(problem)
    return page


def verify_page(page: Page, certificate: AuthorCertificate) -> Page:
    """The page, when the hub with this (verified) certificate signed it.

    Raises ForeignFleet, UnknownAuthor, NotPermitted (the certificate is not a hub's) or BadSignature.
    """
    if page.fleet != certificate.fleet:
        raise ForeignFleet("the settlement belongs to another fleet")
    if page.signer != certificate.replica:
        raise UnknownAuthor("the settlement is not from the hub this ledger knows")
    if certificate.role is not Role.HUB:
        raise NotPermitted("only a hub may settle")
    if not verify(certificate.public_key, page.signature, PAGE_TAG + page.raw[:-SIGNATURE_BYTES]):
        raise BadSignature("the settlement is not signed by the hub")
    return page


def _problem(page: Page) -> str | None:
    if page.series == NO_SERIES or not page.base <= page.position <= MAX_POSITION:
        return "a settlement page needs a series, and a position from its base on"
    if len(page.rows) > MAX_PAGE_ROWS or len(page.heads) > MAX_PAGE_HEADS:
        return f"a settlement page has at most {MAX_PAGE_ROWS} cards and {MAX_PAGE_HEADS} heads"
    if any(head.seq == 0 and head != GONE for head in page.heads.values()):
        return "a settled head of no facts has no hash"
    looked_on = page.until.since > 0 and not page.final  # in an inventory, where nothing may be left of it
    something = page.rows or page.heads or page.ends_inventory or looked_on
    advances = page.after.place < page.until.place if something else page.after == page.until
    seen = page.position if something else page.after.seen
    if not advances or page.until.seen != seen or not all(map(is_reached, (page.after, page.until))):
        return "a settlement page's cursors do not match its changes"
    if page.until.position > max(page.position, page.after.position) or page.after.seen > page.position:
        return "a settlement page's cursors are beyond its position"
    if not _goes_on(page):
        return "an inventory is of a full load, and of one position to its end"
    if not page.final and not something:
        return "only a final settlement page, or one of an inventory, may be empty"
    return None


def _goes_on(page: Page) -> bool:
    """Whether the cursors are of one inventory, where they are of any."""
    begun, goes_on = page.after.since, page.until.since
    if any(in_inventory(cursor) != (cursor.since > 0) for cursor in (page.after, page.until)):
        return False
    if not begun and not goes_on:
        return True
    same = goes_on in {begun, 0} if begun else page.after == START
    return same and page.base == 0 and max(begun, goes_on) <= page.position


def _problem_of_rows(
    sums: Sequence[int], openings: Sequence[int], flags: Sequence[int], numbers: Sequence[int]
) -> str | None:
    """By columns: looking at each row would cost a third of what parsing a page does."""
    bounds = ((openings, MAX_AMOUNT_MINOR), (flags, _ALL_FLAGS), (numbers, MAX_CARD_NUMBER))
    in_range = min(sums) >= -(2**63) and max(sums) < 2**63
    if in_range and all(min(column) >= 0 and max(column) <= most for column, most in bounds):
        return None
    return "a settled card has a sum, an opening, flags or a number out of range"


def _body(page: Page) -> bytes:
    writer = Writer().uint(VERSION, 1).raw(page.fleet).raw(page.signer).raw(page.series).varint(page.base)
    write_cursor(writer, page.after)
    write_cursor(writer, page.until)
    writer.varint(page.position).uint(page.final, 1).varint(len(page.rows))
    if page.rows:
        _write_rows(writer, page.rows)
    write_frontier(writer, page.heads)
    return writer.done()


def _write_rows(writer: Writer, rows: Sequence[CardRow]) -> None:
    cards, sums, *others = zip(*rows, strict=True)
    problem = _problem_of_rows(sums, *others)
    if len(set(cards)) != len(cards):
        problem = "a settlement page gives a card once"
    if problem:
        raise MisuseError(problem)
    write_card_ids(writer, cards)
    for column in (list(map(zigzag, sums)), *others):
        write_numbers(writer, column)


def _read_rows(reader: Reader) -> tuple[CardRow, ...]:
    size = reader.varint(0, MAX_PAGE_ROWS)
    if not size:
        return ()
    cards = read_card_ids(reader, size)
    sums, _ = read_numbers(reader, size, 8)
    openings, _ = read_numbers(reader, size, 6)
    flags, _ = read_numbers(reader, size, 1)
    numbers, _ = read_numbers(reader, size, 5)
    signed = list(map(unzigzag, sums))
    problem = _problem_of_rows(signed, openings, flags, numbers)
    if problem:
        raise Malformed(problem)
    return tuple(card_rows(zip(cards, signed, openings, flags, numbers, strict=True)))
