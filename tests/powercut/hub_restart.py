"""The real hub's ledger, started on a crash image: does it go on as if nothing had happened?"""

from pathlib import Path
from random import Random

from crdt.facts import NEW_CARD, CardId, Draft, Kind
from crdt.settlement import HOTLISTED, verify_page
from crdt.store.blocks import NO_HEAD
from crdt.store.hub import HubLedger
from tests.crdt import world
from tests.powercut.chain import Chain
from tests.powercut.hub_check import Found, Said, hub_head
from tests.powercut.images import Broken
from tests.powercut.parties import CARDS, ME, OTHERS, key_of, open_hub
from tests.powercut.settling import Fact, Settled, digest, plus

_AT_MS = 9_000
_TOPUP = Draft(Kind.TOPUP, 7)


def restart(directory: Path, found: Found, said: Said, chance: Random) -> None:
    """Start, compare, settle anew and from where terminals are, book again, book, merge. Raises Broken."""
    with open_hub(directory, key_of(directory, chance), chance) as (_, ledger):
        if ledger.restored:
            raise Broken("the hub took a power cut for a restored backup: it books nothing any more")
        if ledger.digest().result() != digest(found.record.heads, found.states):
            raise Broken("the started hub's digest is not the model's")
        if not ledger.books().result().balance:
            raise Broken("the books of the started hub do not balance")
        for puller in (Settled(), said.installed, said.told):
            _settle(ledger, found, puller)
        for request in sorted(found.requests)[-2:]:
            card, amount_minor = said.orders[request]
            draft = Draft(Kind.TOPUP, amount_minor)
            booking = ledger.append(CardId(card), [draft], _AT_MS, request=request).result()
            if not booking.repeated or booking.head != hub_head(found):
                raise Broken(f"{request} booked again")
        _go_on(ledger, found, chance)


def _settle(ledger: HubLedger, found: Found, puller: Settled) -> None:
    """A terminal that has so much takes the rest, and then has exactly what the hub has."""
    final = False
    while not final:
        page = verify_page(ledger.page(*puller.asks, 5).result(), world.HUB)
        puller, final = puller.taking(page), page.final
    known = {card: state for card, state in puller.states().items() if state != NEW_CARD}
    if known != {card: state for card, state in found.states.items() if state != NEW_CARD}:
        raise Broken("a terminal that settles with the started hub gets other balances than the hub's")
    if {card for card, row in puller.cards.items() if row.flags & HOTLISTED} != found.listed:
        raise Broken("a terminal that settles with the started hub gets another hotlist")
    if puller.heads != found.record.heads or puller.position != found.position:
        raise Broken("a terminal that settles with the started hub gets other heads or another position")


def _go_on(ledger: HubLedger, found: Found, chance: Random) -> None:
    facts: list[Fact] = [(CARDS[1], _TOPUP.kind, _TOPUP.amount_minor, _AT_MS)]
    booking = ledger.append(CARDS[1], [_TOPUP], _AT_MS, request="afterwards").result()
    heads = {**found.record.heads, ledger.replica: booking.head}
    if booking.repeated or booking.head.seq != hub_head(found).seq + 1:
        raise Broken("a new booking did not continue the hub's chain")
    for author in (ME, *OTHERS):
        chain = Chain(author, found.record.heads.get(author.key.replica, NO_HEAD))
        block = chain.grow(chance)
        report = ledger.merge([block.raw], [author.certificate]).result()
        if report.refused or report.heads != {author.key.replica: block.head}:
            raise Broken(f"the next block of {author.certificate.name} was refused: {report.refused}")
        heads[author.key.replica] = block.head
        facts += chain.facts
    if ledger.digest().result() != digest(heads, plus(found.states, facts)):
        raise Broken("what was booked and merged afterwards does not add up")
