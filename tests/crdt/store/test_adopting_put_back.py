"""Invariants 3 and 5: what was adopted counts once, however often the hub is put back in between.

Nothing is forged here: the hub adopts and takes back, its database goes back to a copy, and what
it had written meanwhile comes back from others.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.block import Block, parse, seal
from crdt.certificate import Role, issue
from crdt.documents import SignedDocument
from crdt.facts import NEW_CARD, Delta, Draft, Kind, TerminalId
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from crdt.store import quarantine
from crdt.store.content import Content
from crdt.store.database import Database
from crdt.store.hub import HubLedger
from tests.crdt import world
from tests.crdt.store.fleet import KEY, added_up, card, deltas_of
from tests.crdt.store.quarantined import at_rest, in_quarantine
from tests.crdt.store.test_adopting import COMMON, MINE, ONE, THEIRS, as_of, facts, renewed

CARDS = (1, 2, 3, 4, 9)
TWICE = renewed(ONE)
AGAIN = TWICE.blocks(as_of(THEIRS, TWICE), [1])
OTHERS = [*THEIRS[:1], *facts((2, Kind.FARE, -9), (4, Kind.FARE, 0), first=4)]  # begins as THEIRS does
BRANCH = ONE.blocks(COMMON + THEIRS, [4])
OTHER_BRANCH = [seal(ONE.key, world.FLEET, [*COMMON[1:], *OTHERS], b"p" * 32)]
EVERYTHING = 1 << 22


def hub_identity(number: int) -> world.Terminal:
    """The hub's first identity, or a later one."""
    if number == 0:
        return world.Terminal(world.HUB_KEY, world.HUB)
    key = SigningKey(bytes([number]) * 32)
    name, limits = world.HUB.name, world.HUB.limits
    terminal = TerminalId(key.replica)
    return world.Terminal(key, issue(world.FLEET_KEY, terminal, name, Role.HUB, key.public_key, limits))


class Depot:
    """A hub of which others keep all that it writes, while its database goes back to copies."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "hub.db"
        self._copy = directory / "copy"
        self._identity = 0
        self._distance = 0
        self._lists = 0
        self.sold: list[Delta] = []
        self.elsewhere: dict[bytes, bytes] = {}  # blocks of the hub, by hash
        self._open()
        self.give(ONE.blocks(COMMON + MINE, []))
        self.keep()

    def _open(self) -> None:
        self._database = Database.open(self._path, KEY, readers=1)
        self._start()

    def _start(self) -> None:
        now = hub_identity(self._identity)
        self.hub = HubLedger(
            self._database, world.FLEET_KEY.public_key, now.key, now.certificate, entropy=self._entropy
        )

    def _entropy(self, length: int) -> bytes:
        self._distance += 1000
        return self._distance.to_bytes(length, "big")

    def close(self) -> None:
        """End."""
        self.hub.close()
        self._database.close()

    def restart(self) -> None:
        """As a new identity, where this one must not write any more."""
        if self.hub.restored:
            self._identity += 1
        self.close()
        self._open()

    def keep(self) -> None:
        """Copy the database."""
        self.close()
        shutil.copy(self._path, self._copy)
        self._open()

    def go_back(self, *, noticed: bool) -> None:
        """Put the copy back. Others keep what was written since; `noticed`: under a new identity."""
        self.note()
        self.close()
        for file in self._path.parent.glob("hub.db*"):
            file.unlink()
        shutil.copy(self._copy, self._path)
        self._identity += noticed
        self._open()

    def note(self) -> None:
        """Others get what the hub has written."""
        for number in range(self._identity + 1):
            replica = hub_identity(number).key.replica
            for raw in self.hub.blocks_after(replica, 0, EVERYTHING).result():
                self.elsewhere[parse(raw).hash] = raw

    def give(self, blocks: Iterable[Block]) -> None:
        """Somebody brings blocks, and all certificates there are."""
        certificates = [hub_identity(number).certificate for number in range(self._identity + 1)]
        certificates += [*world.CERTIFICATES, TWICE.certificate]
        self.hub.merge([block.raw for block in blocks], certificates).result()

    def bring_back(self) -> None:
        """What others have kept of the hub's own comes back."""
        self.give(map(parse, self.elsewhere.values()))

    def revoke(self, revocations: Revocations) -> None:
        """A new list."""
        self._lists += 1
        body = revocations.encode()
        document = SignedDocument.seal(world.HUB_KEY, world.FLEET, REVOKED_DOCUMENT, self._lists, body)
        self.hub.put_document(document).result()

    def sell(self) -> None:
        """A top-up of the hub's own; each is of another moment."""
        self._may_write()
        at_ms = len(self.sold) + 1
        self.hub.append(card(9), [Draft(Kind.TOPUP, 1000)], at_ms).result()
        self.sold.append(Delta(self.hub.replica, at_ms, card(9), Kind.TOPUP, 1000, at_ms))

    def adopt(self) -> None:
        """The operator adopts whatever lacks."""
        self._may_write()
        kept = in_quarantine(self.hub).result()
        self.hub.adopt([one.hash for one in kept if one.resolution in quarantine.UNRESOLVED]).result()

    def _may_write(self) -> None:
        if self.hub.restored:
            self.restart()

    def rest(self) -> None:
        """Wait for what goes on in the background."""
        at_rest(self.hub)

    def believes(self) -> dict[int, int]:
        """The balances of the test's cards."""
        self.rest()
        assert self.hub.books().result().balance
        return {number: self.hub.balance(card(number)).result() for number in CARDS}

    def counted(self) -> list[Delta]:
        """What the hub has written itself; what it has taken back is what it had copied."""
        return [delta for delta in self.own_facts() if delta.kind is not Kind.ADJUSTMENT]

    def own_facts(self) -> list[Delta]:
        """What counts of all that any identity of the hub has written."""
        identities = [hub_identity(number).key.replica for number in range(self._identity + 1)]
        return [
            delta
            for replica in identities
            for raw in self.hub.blocks_after(replica, 0, EVERYTHING).result()
            for delta in deltas_of(parse(raw))
        ]


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    """A hub that holds the branch that counts."""
    with closing(Depot(tmp_path)) as depot:
        yield depot


def balances(counted: Iterable[Delta]) -> dict[int, int]:
    """What the test's cards have when each content counts once, whoever wrote it."""
    distinct = {Content.of(delta): delta for delta in counted}
    states = added_up(distinct.values())
    return {number: states.get(card(number), NEW_CARD).balance_minor for number in CARDS}


def resolutions(depot: Depot) -> set[str]:
    """What became of what is in quarantine."""
    return {entry.resolution for entry in in_quarantine(depot.hub).result()}


ONCE = balances(COMMON + MINE + THEIRS)


@pytest.mark.parametrize("evidence_first", [True, False])
@pytest.mark.parametrize("adopted_again", [True, False])
def test_what_a_lost_adoption_booked_is_taken_back_when_the_terminal_writes_it(
    depot: Depot, adopted_again: bool, evidence_first: bool
) -> None:
    """The adopting block comes back from others: that says that the entry is adopted."""
    depot.give(BRANCH)
    depot.adopt()
    depot.go_back(noticed=True)
    if evidence_first or adopted_again:
        depot.give(BRANCH)
    if adopted_again:
        depot.adopt()
    depot.bring_back()
    depot.give(BRANCH)
    assert depot.believes() == ONCE
    assert resolutions(depot) == {quarantine.ADOPTED}
    depot.give(AGAIN)
    assert depot.believes() == ONCE
    assert resolutions(depot) == {quarantine.UNDONE}


@pytest.mark.parametrize("back_first", [True, False])
def test_what_was_taken_back_before_the_hub_was_put_back_is_not_taken_back_twice(
    depot: Depot, back_first: bool
) -> None:
    """The copy is of after the adoption; what the terminal wrote again, and the taking back, are lost."""
    depot.give(BRANCH)
    depot.adopt()
    depot.keep()
    depot.give(AGAIN)
    depot.rest()
    depot.go_back(noticed=True)
    steps = [depot.bring_back, lambda: depot.give(AGAIN)]
    for step in steps if back_first else steps[::-1]:
        step()
        assert depot.believes() == ONCE
    assert resolutions(depot) == {quarantine.UNDONE}


def test_what_is_taken_back_is_of_the_day_and_the_place_that_had_it_twice(depot: Depot) -> None:
    """For reports: the exact mirror of what it takes back."""
    depot.give(BRANCH)
    depot.adopt()
    copies = depot.own_facts()
    depot.give(AGAIN)
    depot.rest()
    back = depot.own_facts()[len(copies) :]
    moving = [copy for copy in copies if copy.kind is not Kind.OPENING]
    assert {Content.of(delta) for delta in back} == {Content.of(copy).back for copy in moving}
    assert {delta.kind for delta in back} == {Kind.ADJUSTMENT}


def test_an_accepted_block_that_an_earlier_identity_of_the_hub_had_adopted_counts_once(depot: Depot) -> None:
    """It had come after its terminal was replaced; the copy knows of a revocation only, which is lifted."""
    late = ONE.blocks([*COMMON, *MINE, *facts((1, Kind.FARE, -5), first=4)], [3])[1:]
    depot.revoke(Revocations().with_replaced({ONE.key.replica: 3}))
    depot.give(late)
    depot.adopt()
    depot.go_back(noticed=True)
    depot.revoke(Revocations({ONE.key.replica: 3}))
    depot.give(late)
    depot.bring_back()
    depot.rest()
    assert resolutions(depot) == {quarantine.ADOPTED}
    depot.revoke(Revocations({ONE.key.replica: 4}))
    assert depot.believes() == balances([*COMMON, *MINE, *facts((1, Kind.FARE, -5), first=4)])
    assert resolutions(depot) == {quarantine.UNDONE}


EVENTS = {
    "a branch comes": lambda depot: depot.give(BRANCH),
    "another branch comes": lambda depot: depot.give(OTHER_BRANCH),
    "the operator adopts": Depot.adopt,
    "the hub sells": Depot.sell,
    "the database is copied": Depot.keep,
    "it goes back": lambda depot: depot.go_back(noticed=True),
    "it goes back with its marks": lambda depot: depot.go_back(noticed=False),
    "the hub is started again": Depot.restart,
    "others bring what they kept": Depot.bring_back,
}
WRITES_AGAIN = "the terminal writes again"


@given(
    events=st.lists(st.sampled_from([*EVENTS, WRITES_AGAIN, WRITES_AGAIN]), max_size=14),
    again=st.lists(st.sampled_from([*THEIRS, *OTHERS[1:]]), unique=True),
    sizes=st.lists(st.integers(1, 3), max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_whatever_comes_in_whichever_order_each_fact_counts_once(
    events: list[str], again: list[Delta], sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As far as the terminal has written it again, or any identity of the hub has adopted it."""
    rewritten = TWICE.blocks(as_of(again, TWICE), sizes)
    coming = iter(range(1, len(rewritten) + 1))
    with closing(Depot(tmp_path_factory.mktemp("depot"))) as depot:
        for event in events:
            if event == WRITES_AGAIN:
                depot.give(rewritten[: next(coming, len(rewritten))])
            else:
                EVENTS[event](depot)
        depot.note()
        depot.restart()
        everything = [*BRANCH, *OTHER_BRANCH, *rewritten]
        give_all(depot, everything)
        assert depot.believes() == balances([*COMMON, *MINE, *again, *depot.counted()])
        depot.adopt()
        once = depot.believes()
        assert once == balances([*COMMON, *MINE, *THEIRS, *OTHERS, *depot.sold])
        assert not resolutions(depot) & quarantine.UNRESOLVED
        written = len(depot.own_facts())
        depot.restart()
        give_all(depot, everything)
        assert depot.believes() == once
        assert len(depot.own_facts()) == written


def give_all(depot: Depot, blocks: Sequence[Block]) -> None:
    """All that was ever signed comes once more; the hub goes on as a new identity where it has to."""
    depot.give(blocks)
    depot.bring_back()
    if depot.hub.restored:
        depot.restart()
    depot.rest()
