"""A hub whose database goes back to copies, while others keep what it had written.

Nothing is forged: it really adopts and takes back, and what comes back is what it once signed.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from crdt.block import Block, parse
from crdt.certificate import AuthorCertificate, Role, issue
from crdt.documents import SignedDocument
from crdt.errors import MisuseError
from crdt.facts import Delta, Draft, Kind, TerminalId
from crdt.revocations import REVOKED_DOCUMENT, Revocations
from crdt.signing import SigningKey
from crdt.store import said_again
from crdt.store.database import Database
from crdt.store.days import QUARTER_MS, Day
from crdt.store.hub import HubLedger
from tests.crdt import world
from tests.crdt.store.branches import COMMON, MINE, ONE, caught_up, renewed
from tests.crdt.store.fleet import KEY, card, deltas_of
from tests.crdt.store.quarantined import at_rest, in_quarantine

EVERYTHING: Final = 1 << 22  # bytes
CARDS: Final = (1, 2, 3, 4, 9)
SOLD_ON: Final = card(9)
TWICE: Final = renewed(ONE)  # the identity under which the terminal writes again


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
        self.open()
        self.give(ONE.blocks(COMMON + MINE, []))
        self.keep()

    def open(self) -> None:
        """Start on what is on the disk."""
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
        self.open()

    def keep(self) -> None:
        """Copy the database."""
        self.close()
        shutil.copy(self._path, self._copy)
        self.open()

    def go_back(self, *, noticed: bool) -> None:
        """Put the copy back. Others keep what was written since; `noticed`: under a new identity."""
        self.note()
        self.close()
        for file in self._path.parent.glob("hub.db*"):
            file.unlink()
        shutil.copy(self._copy, self._path)
        self._identity += noticed
        self.open()

    def go_back_to_now(self) -> None:
        """Put back to a copy of this moment: nothing is lost, and it goes on as its next identity."""
        self.keep()
        self.go_back(noticed=True)

    def note(self) -> None:
        """Others get what the hub has written."""
        for number in range(self._identity + 1):
            replica = hub_identity(number).key.replica
            for raw in self.hub.blocks_after(replica, 0, EVERYTHING).result():
                self.elsewhere[parse(raw).hash] = raw

    def give(self, blocks: Iterable[Block], further: Iterable[AuthorCertificate] = ()) -> None:
        """Somebody brings blocks, all certificates that every test has, and `further` ones."""
        certificates = [hub_identity(number).certificate for number in range(self._identity + 1)]
        certificates += [*world.CERTIFICATES, TWICE.certificate, *further]
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
        self.hub.append(SOLD_ON, [Draft(Kind.TOPUP, 1000)], at_ms).result()
        self.sold.append(Delta(self.hub.replica, at_ms, SOLD_ON, Kind.TOPUP, 1000, at_ms))

    def adopt(self) -> None:
        """The operator adopts whatever lacks, one block after the other, the last one first."""
        self._may_write()
        for entry in reversed(in_quarantine(self.hub).result()):
            self.hub.adopt([entry.hash]).result()

    def adopt_what_may_be(self) -> None:
        """The same of what is there because of a fork or a replacement."""
        self._may_write()
        for entry in reversed(in_quarantine(self.hub).result()):
            with suppress(MisuseError):
                self.hub.adopt([entry.hash]).result()

    def _may_write(self) -> None:
        if self.hub.restored:
            self.restart()

    def rest(self) -> None:
        """Wait for what goes on in the background."""
        at_rest(self.hub)

    def noted(self) -> bool:
        """Whether rides may be there more than once, and nobody has looked."""
        return self._database.read_and_wait(said_again.are_noted)

    def believes(self) -> dict[int, int]:
        """The balances of the test's cards."""
        self.rest()
        assert self.hub.books().result().balance
        return {number: self.hub.balance(card(number)).result() for number in CARDS}

    def rides(self) -> int:
        """The taps of the day on which everything of these tests was, whoever booked them."""
        self.rest()
        caught_up(self.hub)
        figures = self.hub.report(Day(0, QUARTER_MS, 1)).result().figures
        return sum(one.taps for one in figures.values())

    def counted(self) -> list[Delta]:
        """What the hub has written itself; what it has taken back is what it had copied, or others wrote."""
        back = (Kind.ADJUSTMENT, Kind.REVERSAL, Kind.RETRACTION, Kind.DUPLICATE, Kind.REINSTATED)
        return [delta for delta in self.own_facts() if delta.kind not in back]

    def own_facts(self) -> list[Delta]:
        """What counts of all that any identity of the hub has written."""
        identities = [hub_identity(number).key.replica for number in range(self._identity + 1)]
        return [
            delta
            for replica in identities
            for raw in self.hub.blocks_after(replica, 0, EVERYTHING).result()
            for delta in deltas_of(parse(raw))
        ]


HUB_EVENTS: Final[Mapping[str, Callable[[Depot], None]]] = {
    "the hub sells": Depot.sell,
    "the database is copied": Depot.keep,
    "it goes back": lambda depot: depot.go_back(noticed=True),
    "it goes back with its marks": lambda depot: depot.go_back(noticed=False),
    "the hub is started again": Depot.restart,
    "others bring what they kept": Depot.bring_back,
}
"""What happens to a hub by itself."""
