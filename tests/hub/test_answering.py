"""What the hub answers beside settlement and Ack: who was restored, what is wanted, what is missing."""

import asyncio
from collections.abc import Sequence

import pytest

from crdt.block import parse
from crdt.certificate import AuthorCertificate
from crdt.cursor import Cursor, beginning
from crdt.errors import RefusalCode
from crdt.facts import CardId, Draft, Kind, ReplicaId
from crdt.frames import (
    MAX_EXCHANGE_BYTES,
    BlockFrame,
    CertificateFrame,
    Heads,
    Hello,
    Refusal,
    ShortBlockFrame,
    Want,
)
from crdt.frontier import GENESIS, Frontier, Head
from crdt.numbering import shorten
from crdt.open_segment import OpenSegment
from crdt.pull import Pull
from crdt.revocations import Revocations
from crdt.session import Ended, Event
from crdt.settlement import Page, parse_page
from crdt.store import cutting
from crdt.store.completeness import Complete
from crdt.store.days import QUARTER_MS, Day
from crdt.terminal_status import Status
from hub.answering import MAX_OWN_BYTES, MAX_WANTED_BYTES, Answerer
from hub.heard import Heard
from hub.waiting import result_of
from tests.crdt.store.quarantined import in_quarantine
from tests.hub.conftest import Depot
from tests.hub.terminal import CARD, NOON_MS, Terminal, first, reference

SAID = Status({"held": 0})


def heads(*terminals: Terminal) -> Frontier:
    return {one.key.replica: one.head for one in terminals if one.head.seq}


def blocks(events: Sequence[Event]) -> list[bytes]:
    return [event.raw for event in events if isinstance(event, BlockFrame)]


async def unproven(depot: Depot) -> dict[ReplicaId, str]:
    found = await asyncio.wrap_future(depot.hub.ledger.waiting())
    return {one.replica: one.source for one in found if not one.proven}


async def waiting(depot: Depot) -> dict[ReplicaId, tuple[int, int]]:
    found = await asyncio.wrap_future(depot.hub.ledger.waiting())
    return {one.replica: (one.held_seq, one.expected_seq) for one in found}


# ---- Restored storage (invariant 5) ----


@pytest.mark.parametrize("named", [True, False])
async def test_a_terminal_behind_what_it_sealed_before_is_told_so(depot: Depot, named: bool) -> None:
    """Its image was put back: with some blocks, or to where it had none."""
    terminal = await depot.pair("Bus 7")
    await terminal.push(terminal.taps(-250), terminal.taps(-250))
    old = {terminal.key.replica: parse(terminal.chain[0]).head} if named else {}
    events = await terminal.exchange(SAID, Pull(), frontier=old)
    assert isinstance(events[1], Refusal)
    assert events[1].code is RefusalCode.RESTORED
    assert "had sealed up to 2 before" in events[1].text
    assert first(events, "PageFrame")  # all else goes on: its passengers' balances are as good as ever
    assert first(events, "Hello").frontier == heads(terminal)


async def test_a_terminal_beside_what_it_sealed_before_is_told_so(depot: Depot) -> None:
    terminal = await depot.pair()
    await terminal.push(terminal.taps(-250))
    events = await terminal.exchange(SAID, frontier={terminal.key.replica: Head(1, bytes(range(32)))})
    assert first(events, "Refusal").code is RefusalCode.RESTORED


async def test_a_terminal_that_is_level_or_ahead_is_not(depot: Depot) -> None:
    terminal = await depot.pair()
    for _ in range(2):
        terminal.taps(-250)
        events = await terminal.exchange(SAID, frontier=heads(terminal))
        assert [type(event) for event in events] == [Hello, Ended]
        await terminal.push(*terminal.chain)
        events = await terminal.exchange(SAID, frontier=heads(terminal))
        assert [type(event) for event in events] == [Hello, Ended]


async def test_a_terminal_ahead_on_a_branch_that_does_not_count_is_told_so(depot: Depot) -> None:
    terminal = await depot.pair()
    await terminal.push(terminal.taps(-250))
    terminal.head, terminal.chain = Head(0, GENESIS), []
    events = await terminal.push(terminal.taps(-180, -180))
    assert first(events, "Refusal").code is RefusalCode.FORK_DETECTED
    events = await terminal.exchange(SAID, frontier=heads(terminal))
    assert first(events, "Refusal").code is RefusalCode.RESTORED
    assert await waiting(depot) == {}  # what it numbers there is not waited for


async def test_a_shorter_branch_that_another_carries_is_asked_for_and_proved(depot: Depot) -> None:
    """Invariants 4 and 5: what a settlement would cover up becomes evidence, and the operator is told."""
    author, carrier = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await author.push(author.taps(-250))
    branch = Terminal(**vars(author) | {"chain": list(author.chain)})
    branch.taps(-250, -250)
    await author.push(author.taps(-100), author.taps(-100, -100))
    events = await carrier.exchange(SAID, frontier=heads(branch))
    assert author.key.replica not in first(events, "Hello").frontier
    frames = [BlockFrame(raw) for raw in branch.chain]
    events = await carrier.exchange(CertificateFrame(author.certificate.encode()), *frames)
    assert first(events, "Refusal").code is RefusalCode.FORK_DETECTED
    (proof,) = await asyncio.wrap_future(in_quarantine(depot.hub.ledger))
    assert proof.raw == branch.chain[-1]
    assert await waiting(depot) == {}


async def test_the_beginning_of_a_chain_is_answered_with_its_head(depot: Depot) -> None:
    author, carrier = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await author.push(author.taps(-250), author.taps(-250))
    beginning = {author.key.replica: parse(author.chain[0]).head}
    events = await carrier.exchange(SAID, frontier=beginning)
    assert first(events, "Hello").frontier == heads(author)


# ---- Blocks by number ----


def short(raw: bytes, numbers: dict[CardId, int]) -> ShortBlockFrame:
    shortened = shorten(parse(raw), numbers)
    assert shortened is not None
    return ShortBlockFrame(shortened)


async def settled(terminal: Terminal) -> Page:
    (page,) = await terminal.pull()
    return page


async def test_a_block_by_the_numbers_of_its_cards_is_the_block(depot: Depot) -> None:
    terminal = await depot.pair()
    await terminal.push(terminal.taps(500, kind=Kind.OPENING))
    numbers = {row.card: row.number for row in (await settled(terminal)).rows}
    events = await terminal.exchange(short(terminal.taps(-250), numbers))
    assert first(events, "Ack").frontier == heads(terminal)
    assert await depot.digest() == await reference(terminal)


async def test_a_number_that_is_unknown_or_wrong_changes_nothing_and_the_rest_goes_on(depot: Depot) -> None:
    """Invariant 8: a number is never believed; the block in full is taken afterwards."""
    terminal, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    second = CardId(bytes.fromhex("04ffffff"))
    await terminal.push(
        terminal.taps(500, kind=Kind.OPENING), terminal.taps(500, card=second, kind=Kind.OPENING)
    )
    numbers = {row.card: row.number for row in (await settled(terminal)).rows}
    raw, fine = terminal.taps(-250), other.taps(-180)
    for wrong, code in (
        ({CARD: 10_000}, RefusalCode.UNKNOWN_CARD_NUMBER),
        ({CARD: numbers[second]}, RefusalCode.BAD_SIGNATURE),
    ):
        certificate = CertificateFrame(other.certificate.encode())
        events = await terminal.exchange(short(raw, wrong), certificate, BlockFrame(fine))
        assert first(events, "Refusal").code is code
        assert first(events, "Ack").frontier[other.key.replica] == other.head
    events = await terminal.push(raw)
    assert first(events, "Ack").frontier == heads(terminal)


# ---- What a terminal wants ----


async def test_a_terminal_gets_what_it_wants_author_by_author(depot: Depot) -> None:
    one, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await one.push(one.taps(-250), one.taps(-250))
    await other.push(other.taps(-180))
    events = await one.exchange(Want({one.key.replica: 1}))
    assert blocks(events) == one.chain[1:]
    events = await one.exchange(Want({one.key.replica: 2}, others=True))
    assert blocks(events) == other.chain
    certificate = AuthorCertificate.decode(first(events, "CertificateFrame").raw)
    assert certificate.verify(one.fleet_public_key) == other.certificate
    assert blocks(await one.exchange(Want({other.key.replica: 9}))) == []


async def test_a_chain_is_not_shown_while_facts_are_still_to_leave_it(depot: Depot) -> None:
    """Invariants 3 and 6: its terminal would write again, under its next identity, what counts here still."""
    terminal, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await terminal.push(terminal.taps(-250), terminal.taps(-180))
    await other.push(other.taps(-70))
    replica = terminal.key.replica
    revocations = Revocations().with_replaced({replica: 1})
    await asyncio.wrap_future(depot.hub.database.write(lambda sql: cutting.begin(sql, revocations)))
    for after_seq in (0, 1, 2):
        events = await other.exchange(Want({replica: after_seq}))
        assert first(events, "Refusal").code is RefusalCode.COME_AGAIN
        assert blocks(events) == []
    assert blocks(await other.exchange(Want({other.key.replica: 0}))) == other.chain
    await asyncio.wrap_future(depot.hub.database.write(lambda sql: cutting.cut_some(sql, NOON_MS)))
    assert blocks(await other.exchange(Want({replica: 0}))) == terminal.chain[:1]


async def test_an_answer_stays_within_an_exchange_and_asking_again_brings_the_rest(depot: Depot) -> None:
    """Invariant 8: bounded, however much is wanted."""
    terminal = await depot.pair()
    for block in range(12):
        cards = [CardId(number.to_bytes(16, "big")) for number in range(block * 4096 + 1, (block + 1) * 4096)]
        terminal.taps_on(cards, -250)
    for raw in terminal.chain:
        await terminal.push(raw)
    got: list[bytes] = []
    rounds = 0
    while len(got) < len(terminal.chain):
        after = parse(got[-1]).last_seq if got else 0
        events = await terminal.exchange(Want({terminal.key.replica: after}))
        assert 0 < sum(map(len, blocks(events))) <= MAX_WANTED_BYTES < MAX_EXCHANGE_BYTES
        got += blocks(events)
        rounds += 1
    assert got == terminal.chain
    assert rounds > 1


async def test_the_hubs_own_chain_comes_in_small_parts(depot: Depot) -> None:
    """A terminal only keeps it, maybe over a slow link; what else it wants does not wait for that."""
    terminal = await depot.pair()
    await terminal.push(terminal.taps(500, kind=Kind.OPENING))
    ledger = depot.hub.ledger
    for _ in range(2 * MAX_OWN_BYTES // 150):
        await asyncio.wrap_future(ledger.append(CARD, [Draft(Kind.TOPUP, 100)], 5_000))
    chain = await asyncio.wrap_future(ledger.blocks_after(ledger.replica, 0, MAX_EXCHANGE_BYTES))
    got: list[bytes] = []
    while len(got) < len(chain):
        after = parse(got[-1]).last_seq if got else 0
        events = await terminal.exchange(Want({ledger.replica: after, terminal.key.replica: 0}))
        own = [raw for raw in blocks(events) if parse(raw).header.replica == ledger.replica]
        assert 0 < sum(map(len, own)) <= MAX_OWN_BYTES
        assert terminal.chain[0] in blocks(events)
        got += own
    assert got == chain


# ---- What the hub learns to be missing (invariant 4) ----


async def test_what_a_terminal_says_it_has_is_waited_for_until_it_is_here(depot: Depot) -> None:
    terminal, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    raw, theirs = terminal.taps(-250), other.taps(-180, -180)
    await terminal.exchange(SAID, frontier=heads(terminal, other))
    assert await waiting(depot) == {terminal.key.replica: (0, 1), other.key.replica: (0, 2)}
    assert await unproven(depot) == {other.key.replica: "Bus 1"}
    await terminal.push(raw)
    assert await waiting(depot) == {other.key.replica: (0, 2)}
    await other.push(theirs)
    assert await waiting(depot) == {}


async def test_what_a_settlement_had_included_is_waited_for(depot: Depot) -> None:
    """A hub that was restored hears so what it lost, from terminals that need not hold it any more."""
    terminal, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await terminal.exchange(Heads({other.key.replica: Head(40, bytes(range(32)))}))
    assert await waiting(depot) == {other.key.replica: (0, 40)}
    assert await unproven(depot) == {other.key.replica: "Bus 1, settled"}


async def test_a_terminals_mere_word_makes_nobody_elses_day_incomplete(depot: Depot) -> None:
    """Invariant 8. It is told as what it is, and what was given up of its word stays so, whatever it says."""
    hostile, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    await other.push(other.taps(-250))
    await other.exchange(SAID, frontier=heads(other))
    start_ms = NOON_MS - NOON_MS % QUARTER_MS
    ledger, day = depot.hub.ledger, Day(start_ms, start_ms + QUARTER_MS, 1)
    whose = [other.key.replica]
    for seq in (40, 41):
        named = {other.key.replica: Head(seq, bytes(range(32)))}
        await hostile.exchange(SAID, frontier=named)
        await hostile.exchange(Heads(named))
        assert (await asyncio.wrap_future(ledger.day_of(whose, day))).completeness == Complete(1)
        assert bool(await unproven(depot)) is (seq == 40)
        assert await asyncio.wrap_future(ledger.give_up(other.key.replica)) is (seq == 40)
    third = await depot.pair("Bus 3")
    await third.exchange(SAID, frontier=named)
    assert await unproven(depot) == {other.key.replica: "Bus 3"}


async def test_a_later_block_proves_that_the_earlier_ones_exist(depot: Depot) -> None:
    """A carrier that cannot bring what lies between still shows the author's signature under a number."""
    carrier, other = await depot.pair("Bus 1"), await depot.pair("Bus 2")
    raws = [other.taps(-250), other.taps(-180, -180)]
    events = await carrier.exchange(CertificateFrame(other.certificate.encode()), BlockFrame(raws[1]))
    assert first(events, "Refusal").code is RefusalCode.CHAIN_BROKEN
    assert (await waiting(depot), await unproven(depot)) == ({other.key.replica: (0, 3)}, {})


async def test_an_open_segment_is_for_peers_and_not_for_a_hub(depot: Depot) -> None:
    terminal = await depot.pair()
    events = await terminal.exchange(OpenSegment(Head(0, GENESIS), 0, b""))
    assert first(events, "Refusal").code is RefusalCode.NOT_PERMITTED


# ---- A time that the hub lost ----


async def test_the_log_names_who_settled_with_a_time_that_this_hub_has_lost(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the marks went back too, and nothing was booked in it, nothing else tells the operator."""
    terminal = await depot.pair("Bus 7")
    await terminal.push(terminal.taps(-250))
    (page,) = await terminal.pull()
    for pull in (Pull(), Pull(page.series), Pull(page.series, page.position, beginning(page.position))):
        await terminal.exchange(pull)
    assert "put back" not in caplog.text
    lost = page.position + 1
    events = await terminal.exchange(Pull(page.series, lost, beginning(lost)))
    assert parse_page(first(events, "PageFrame").raw).restarts
    assert "Bus 7 says that it settled with this hub at a time that the hub does not know" in caplog.text


# ---- Whose turn it is next ----


async def test_invariant_8_only_who_was_given_something_goes_on(depot: Depot) -> None:
    """A turn of one's own is for a settlement that gets further, and not for asking from an old place."""
    terminal = await depot.pair()
    await terminal.push(terminal.taps(-250))
    await terminal.push(terminal.taps(-250))
    (page,) = await terminal.pull()
    assert page.position == 2
    await asyncio.wrap_future(depot.hub.ledger.set_hotlisted(CardId(b"last card"), True))
    for since, goes_on in ((1, False), (2, True)):
        heard = Heard(terminal.key.replica, "bus", None)
        heard.pull = Pull(page.series, 0, Cursor(0, bytes(4), since=since, seen=2))
        answer = await Answerer(depot.hub.ledger, 1, result_of).answer(heard)
        assert answer.goes_on is goes_on


async def test_who_replaces_what_it_has_installed_goes_on_after_the_last_page_too(depot: Depot) -> None:
    """It says first what that was; where the hub is busy it would never come to that."""
    terminal = await depot.pair()
    await terminal.push(terminal.taps(-250))
    for base, goes_on in ((0, False), (1 << 50, True)):
        heard = Heard(terminal.key.replica, "bus", None)
        heard.pull = Pull(b"another series!!", base, beginning(base))
        answer = await Answerer(depot.hub.ledger, 9, result_of).answer(heard)
        assert answer.page is not None
        assert answer.page.restarts
        assert answer.page.final
        assert answer.goes_on is goes_on
