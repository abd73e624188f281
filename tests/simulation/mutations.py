"""Planted bugs: what the simulation has to find, each within a stated number of seeds.

A bug is a change of a product function's source text, so it is exactly what a slip of the pen would be; when
the text is no longer there the mutation fails loudly and has to be brought along.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final

from crdt import block, certificate
from crdt.store import (
    admission,
    authors,
    balances,
    concession,
    held,
    installer,
    keepsake,
    marks,
    memory,
    overdrawn,
    paging,
    recording,
    reissue,
    revoking,
    sealing,
    settled,
    starting,
    tapping,
    writer,
)
from edge import comparing, decide, proving
from hub import revoking as hub_revoking
from tests.simulation.actions import HUB, OWING, REVOKED, STORAGE, STRANGER, THEMES
from tests.simulation.play import Played, first_failure


@dataclass(frozen=True)
class Change:
    """In the source of this function, `new` instead of `old`, which occurs once."""

    function: Callable[..., Any]
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """One bug. `seeds`: it is found within so many from `first` on; of one theme's where `theme` says so."""

    name: str
    seeds: int
    changes: tuple[Change, ...]
    theme: int | None = None
    first: int = 0

    def hunt(self) -> Played | None:
        """Play until it is found; None when it is not."""
        with planted(self):
            if self.theme is None:
                return first_failure(self.first, self.seeds)
            return first_failure(self.first + self.theme, self.seeds, THEMES)


def mutation(
    name: str,
    seeds: int,
    function: Callable[..., Any],
    old: str,
    new: str,
    *more: Change,
    theme: int | None = None,
    first: int = 0,
) -> Mutation:
    """A bug in one function, and in others that go with it. `first`: a multiple of THEMES, see Mutation."""
    return Mutation(name, seeds, (Change(function, old, new), *more), theme, first)


@contextmanager
def planted(bug: Mutation) -> Iterator[None]:
    """The product with the bug in it."""
    with ExitStack() as undo:
        for function in {change.function: None for change in bug.changes}:
            assert isinstance(function, FunctionType)
            undo.callback(setattr, function, "__code__", function.__code__)
            function.__code__ = _changed(function, bug.changes).__code__
        yield


def _changed(function: FunctionType, changes: Iterable[Change]) -> FunctionType:
    source = textwrap.dedent(inspect.getsource(function))
    for change in changes:
        if change.function is function:
            count = source.count(change.old)
            assert count == 1, f"{change.old!r} is {count} times in {function.__qualname__}; bring it along"
            source = source.replace(change.old, change.new)
    names: dict[str, Any] = {}
    code = compile(
        "from __future__ import annotations\n" + source,
        f"<{function.__qualname__} with a planted bug>",
        "exec",
    )
    exec(code, function.__globals__, names)  # noqa: S102 - our own source, with a bug in it
    changed = names[function.__name__]
    assert isinstance(changed, FunctionType)
    return changed


MUTATIONS: Final = (
    # ---- What a ledger lets in ----
    mutation(
        "a block is taken although those before it are missing",
        60,
        admission._Judge._check_chain,
        """raise ChainBroken(f"the author's deltas {head.seq + 1} to {header.first_seq - 1} are missing")""",
        "return",
        first=35,
    ),
    mutation(
        "the hash of the block before is not compared",
        100,
        admission._Judge._check_chain,
        "header.first_seq == head.seq + 1 and header.previous == head.hash",
        "header.first_seq == head.seq + 1",
    ),
    mutation(
        "a fork is taken silently",
        100,
        admission._Judge._check_chain,
        'fork = ForkDetected("the author sealed two different blocks for the same sequence numbers")',
        "return",
    ),
    mutation(
        "signatures of blocks are not checked",
        300,
        block.verify,
        "if not signed_by(",
        "if False and signed_by(",
    ),
    mutation(
        "certificates of anybody count",
        100,
        authors.Authors.check,
        "certificate.verify(self._fleet_public_key)",
        "pass",
    ),
    mutation(
        "the limits of a certificate are not kept",
        100,
        certificate.AuthorCertificate.permits,
        "return ",
        "return True or ",
    ),
    # ---- What it adds up to ----
    mutation(
        "the hub adds openings up",
        30,
        balances.add_gain,
        "opening_minor = max(",
        "opening_minor = (lambda *both: sum(both))(",
    ),
    mutation(
        "a terminal adds openings up",
        60,
        memory.Memory.view,
        "opening_minor = max(opening_minor, held.openings.get(card, 0))",
        "opening_minor += held.openings.get(card, 0)",
    ),
    mutation(
        "a terminal forgets what it holds beyond a settlement",
        60,
        held.held_beyond,
        "if included < head.seq:",
        "if not included:",
        first=50,
    ),
    mutation(
        "a terminal counts what is settled again",
        10,
        held.held_beyond,
        "included = settled.get(replica, NO_HEAD).seq",
        "included = 0",
    ),
    mutation(
        "one block of a merge counts twice",
        120,
        recording.record,
        "for columns in facts:",
        "for columns in (*facts, *facts[1:2]):",
    ),
    mutation(
        "a repeated request books again",
        60,
        recording.book,
        "if before is None:",
        "if before is None or True:",
    ),
    # ---- What is durable ----
    mutation("a tap is acknowledged and not committed", 5, writer.Direct.commit, 'execute("COMMIT")', "pass"),
    mutation(
        "open taps are forgotten at a restart",
        60,
        memory.Memory._take,
        "self.segment = snapshot.segment",
        "self.segment = []",
    ),
    mutation(
        "sealing leaves a tap in memory",
        10,
        memory.Memory.sealed,
        "head.seq - self.head.seq]",
        "head.seq - self.head.seq - 1]",
    ),
    mutation(
        "a block is sealed after another head",
        30,
        sealing.Sealer._draft,
        "previous = self._memory.head.hash",
        "previous = blocks.NO_HEAD.hash",
    ),
    # ---- Settlements ----
    mutation(
        "pages are installed out of order",
        100,
        installer.Installer._check,
        "if not page.restarts and",
        "if False and",
        first=60,
    ),
    mutation(
        "the cursor is one card too far",
        60,
        paging.answer_pull,
        "map(_place_of_row, rows[:limit][-1:])",
        "map(_place_of_row, rows[-1:])",
    ),
    mutation(
        "a settlement leaves out the newest heads",
        60,
        paging._moved,
        "until=until",
        "until=until - 1",
    ),
    mutation(
        "what changes during an inventory is left out",
        300,
        paging._inventory,
        "final=ends and standing.position == since",
        "final=ends",
    ),
    mutation(
        "a restored hub goes on from positions it never made",
        300,
        balances.is_made,
        "return position <= ",
        "return True or position <= ",
    ),
    mutation(
        "a restored hub makes positions again",
        300,
        balances.begin_run,
        "first=last + 1 + distance",
        "first=last + 1",
    ),
    mutation(
        "heads of an earlier settlement stay",
        300,
        installer._swap,
        "head_generation=generation",
        "head_generation=standing.head_generation",
    ),
    mutation(
        "the overlay does not show",
        300,
        tapping.Tapping.view,
        "if standing.overlay_generation:",
        "if False:",
    ),
    mutation(
        "a hub that was put back is not brought its own bookings",
        60,
        keepsake._lost,
        "head.seq < min(",
        "head.seq > min(",
    ),
    mutation(
        "housekeeping loses a card",
        100,
        settled._sink_overlay,
        "AND card <= ? ",
        "AND card < ? ",
        first=45,
    ),
    mutation(
        "housekeeping deletes what shows",
        30,
        settled.tidy,
        "{shown, *made}",
        "made",
    ),
    mutation(
        "a card stays on the hotlist",
        300,
        paging.answer_pull,
        "known=known",
        "known=0",
        theme=STRANGER,
    ),
    # ---- Peers ----
    mutation(
        "what a peer had not sealed counts on once it is settled",
        300,
        memory.Memory.replaced,
        "self.believed.sealed(snapshot.settled)",
        "pass",
    ),
    mutation(
        "a peer's blocks are held and not counted",
        60,
        memory.Memory.merged,
        "self.held.add_columns(columns)",
        "pass",
    ),
    # ---- Storage that was put back ----
    mutation(
        "a terminal does not notice that its storage was put back",
        300,
        marks.Marks.check_start,
        "if mark.seq > head.seq or (",
        "if False and (",
        Change(marks.Marks.check_start, "if database_nonce not in self._known:", "if False:"),
        theme=STORAGE,
    ),
    mutation(
        "a hub put back from a backup numbers facts again",
        100,
        starting._is_put_back,
        "return started or not",
        "return False and not",
        theme=HUB,
    ),
    mutation(
        "a concession writes again what the hub has",
        300,
        reissue.write_again,
        "later = [fact for fact in facts if fact.seq > head.seq]",
        "later = [*facts]",
        theme=STORAGE,
    ),
    mutation(
        "a concession writes nothing again",
        300,
        reissue.write_again,
        "again = [*lost, *(fact for fact in facts if fact.seq <= head.seq)]",
        "again = []",
        theme=STORAGE,
    ),
    mutation(
        "a new identity takes over all taps but one",
        100,
        reissue.renumber,
        "[row[1:] for row in rows]",
        "[row[1:] for row in rows[1:]]",
        theme=STORAGE,
    ),
    mutation(
        "a renewal does not end the identity before",
        30,
        hub_revoking.Revoker.replace,
        "if not new:",
        "if new or not new:",
        theme=STORAGE,
    ),
    mutation(
        "a renewal ends the identity before beyond what the hub holds",
        30,
        hub_revoking._held,
        "heads.get(replica, NO_HEAD).seq for",
        "heads.get(replica, NO_HEAD).seq + 9 for",
        theme=STORAGE,
    ),
    mutation(
        "a suspended terminal that is paired anew is not compared with the hub",
        30,
        comparing.take_up,
        "again = await compare(terminal, before, promised, exchange)",
        "again = 0",
        theme=STORAGE,
    ),
    mutation(
        "a copy with a promised identity is not compared with what that one has written",
        120,
        comparing._Comparison.ask_kin,
        "{*self.promised.former, self.promised.identity.replica}",
        "{*self.promised.former}",
        theme=STORAGE,
    ),
    mutation(
        "what a list of revocations took out of a replaced identity is not written again",
        30,
        reissue.set_aside,
        "return sorted(found, key=lambda block: block.header.first_seq)",
        "return []",
        theme=STORAGE,
        first=660,
    ),
    # ---- Revocations, debts, evidence ----
    mutation(
        "what a revoked author writes is taken",
        30,
        admission._Judge._check_revoked,
        "self._revocations.check(block.header.replica, block.last_seq)",
        "pass",
        theme=REVOKED,
    ),
    mutation(
        "what a revoked author wrote stays in the balances",
        100,
        revoking._remove,
        "balances.take_back(connection, loss, position)",
        "pass",
        theme=REVOKED,
    ),
    mutation(
        "what is accepted after all does not come back",
        60,
        revoking._readmit,
        "if entry.last_seq <= revocations.cut_offs.get(entry.replica, entry.last_seq)",
        "if entry.replica not in revocations.cut_offs",
        theme=REVOKED,
    ),
    mutation(
        "a terminal goes on counting what a revoked one wrote",
        60,
        concession.revoke,
        "removed = cut_off(connection, replica, revocations.cut_offs[replica])",
        "removed = cut_off(connection, replica, chains[replica].head.seq)",
        theme=REVOKED,
    ),
    mutation(
        "no card is overdrawn",
        30,
        balances.judged,
        "if balance_minor < floor_minor",
        "if False",
        theme=OWING,
    ),
    mutation(
        "a milder rule releases nobody",
        240,
        overdrawn.judge_some,
        "if flags != row.flags:",
        "if flags > row.flags:",
        theme=OWING,
    ),
    mutation(
        "evidence counts as delivered and is not sent",
        60,
        proving.Proving._give,
        "*map(BlockFrame, raws)",
        "*()",
        theme=STORAGE,
    ),
    mutation(
        "a terminal lends rides without end",
        30,
        decide._lent,
        "and balance_minor >= 0",
        "",
        theme=OWING,
    ),
)
