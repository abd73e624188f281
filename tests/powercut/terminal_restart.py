"""The real terminal's ledger, started on a crash image: does it go on as if nothing had happened?"""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from random import Random

from crdt.facts import NEW_CARD, CardView
from crdt.ledger import Ledger
from crdt.settlement import UNMET, CardRow, Page
from crdt.store.blocks import NO_HEAD
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.terminal import TerminalLedger
from tests.crdt import world
from tests.powercut.images import Broken
from tests.powercut.parties import CARDS, FARE, ME, key_of, open_database, open_terminal
from tests.powercut.settling import Fact, Settled, plus
from tests.powercut.terminal_check import Found, Said, believed_digest, held_facts, judge

_AT_MS = 9_000


def restart(directory: Path, found: Found, said: Said, chance: Random) -> None:
    """Start, compare every view, take the rest of the settlement, tap, seal. Raises Broken."""
    settled = judge(found, said)
    with open_database(directory, key_of(directory, chance), TERMINAL_LAYOUT) as database:
        ledger = open_terminal(database, directory, chance)
        if ledger.digest() != believed_digest(found, settled):
            raise Broken("the started ledger's digest is not the model's")
        _compare(ledger, found, settled)
        settled = _finish(ledger, said, settled)
        _compare(ledger, found, settled)
        ledger.transact(CARDS[0], lambda _view: ([FARE], None), _AT_MS)
        facts = (*found.facts, (CARDS[0], FARE.kind, FARE.amount_minor, _AT_MS))
        ledger.seal()
        _compare(ledger, replace(found, facts=facts), settled)
        _check_chain(ledger, facts)


def _compare(ledger: TerminalLedger, found: Found, settled: Settled) -> None:
    held = held_facts(found, settled)
    states = plus(settled.states(), held)
    touched = {fact[0] for fact in held}
    for card in CARDS:
        row = settled.cards.get(card, CardRow(card, 0, 0, UNMET))
        known = card in touched or not row.flags & UNMET
        expected = CardView(card, known, states.get(card, NEW_CARD).balance_minor, row.hotlisted, None)
        view = ledger.view(card)._replace(last_fare_at_ms=None)
        if view != expected:
            raise Broken(f"the view is {view}, and has to be {expected}")
    if not ledger.books().balance:
        raise Broken("the books of the started ledger do not balance")
    if ledger.held() != (len(held), sum(fact[2] for fact in held)):
        raise Broken(f"the started ledger holds {ledger.held()}, not {len(held)} deltas")


def _finish(ledger: TerminalLedger, said: Said, settled: Settled) -> Settled:
    """Take the last page that the hub had given, or gives again, and that goes on where the ledger is."""
    own = ledger.own_head().seq
    fitting: Page | None = None
    given = said.pages[said.paged :]
    for page in chain.from_iterable((page, replace(page, after=page.begun)) for page in given):
        if page.heads.get(ME.key.replica, NO_HEAD).seq <= own and (
            page.restarts or page.continues(*ledger.settled())
        ):
            fitting = page
    if fitting is None:
        return settled
    if ledger.install(fitting) != fitting.final:
        raise Broken("a settlement page that goes on where the ledger stands was not taken")
    return settled.taking(fitting)


def _check_chain(ledger: TerminalLedger, facts: tuple[Fact, ...]) -> None:
    model = Ledger(world.FLEET_KEY.public_key)
    report = model.merge(ledger.blocks_after(0, 1 << 24), [ME.certificate])
    if report.refused or report.heads != {ME.key.replica: ledger.own_head()}:
        raise Broken(f"the chain of the started ledger is refused elsewhere: {report.refused}")
    if ledger.own_head().seq != len(facts) or model.cards() != plus({}, facts):
        raise Broken("the sealed chain of the started ledger has other facts than were written")
