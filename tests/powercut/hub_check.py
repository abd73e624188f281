"""Is this crash image one that a hub may have after a power cut?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from crdt.facts import CardId, CardState, Kind, ReplicaId
from crdt.frontier import Head
from crdt.settlement import HOTLISTED, Page, parse_page
from crdt.store.blocks import NO_HEAD
from tests.crdt import world
from tests.powercut.images import Broken, Opened
from tests.powercut.oplog import Mark
from tests.powercut.record import Record, read_record, verified
from tests.powercut.settling import Settled, plus

_ME: Final = world.HUB_KEY.replica
_STANDING: Final = "SELECT series, position, deltas, deltas_minor, openings_minor, projected FROM hub"


@dataclass
class Said:
    """What the hub had said at some moment: the model of what its disk has to hold."""

    key: bool = False
    given: set[bytes] = field(default_factory=set)  # hashes of the blocks that it was sent
    ends: dict[ReplicaId, set[int]] = field(default_factory=dict)  # where what was sent at once ended
    merged: dict[ReplicaId, int] = field(default_factory=dict)  # acknowledged
    orders: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # request to card and amount
    booked: set[str] = field(default_factory=set)  # acknowledged
    listed: list[frozenset[bytes]] = field(default_factory=lambda: [frozenset()])  # after each change
    listings: int = 0  # how many of them were acknowledged
    told: Settled = field(default_factory=Settled)  # what the terminal that pulls has by now
    installed: Settled = field(default_factory=Settled)  # after the last final page
    position: int = 0  # the furthest that anybody was told of

    def hear(self, mark: Mark) -> None:
        """It said this too."""
        match mark["mark"]:
            case "key":
                self.key = True
            case "give":
                self._give([bytes.fromhex(raw) for raw in mark["raws"]])
            case "merged":
                self.merged |= {ReplicaId(bytes.fromhex(one)): seq for one, seq in mark["heads"].items()}
            case "book":
                self.orders[mark["request"]] = bytes.fromhex(mark["card"]), mark["amount"]
            case "booked":
                self.booked.add(mark["request"])
            case "list":
                card = {bytes.fromhex(mark["card"])}
                self.listed.append(self.listed[-1] | card if mark["on"] else self.listed[-1] - card)
            case "listed":
                self.listings = len(self.listed) - 1
            case "told":
                self._tell(parse_page(bytes.fromhex(mark["raw"])))

    def _give(self, raws: list[bytes]) -> None:
        for raw in raws:
            self.given.add(raw)
            head = verified(raw).block
        self.ends.setdefault(head.header.replica, {0}).add(head.last_seq)

    def _tell(self, page: Page) -> None:
        self.told = self.told.taking(page)
        self.position = max(self.position, page.position)
        if page.final:
            self.installed = self.told


@dataclass(frozen=True)
class Found:
    """What an image holds. Starts as that of a hub that has not begun."""

    record: Record = field(default_factory=lambda: Record((), {}))
    series: bytes = b""
    position: int = 0
    states: dict[CardId, CardState] = field(default_factory=dict)
    listed: frozenset[bytes] = frozenset()
    requests: dict[str, int] = field(default_factory=dict)  # to the number of the fact


def find(opened: Opened) -> Found:
    """Read an image's database. Raises Broken where it contradicts itself."""
    standing = opened.rows(_STANDING) if opened.has_table("hub") else []
    if not standing:
        return Found()
    series, position, *totals, projected = standing[0]
    record = read_record(opened)
    cards = opened.rows("SELECT card, sum_minor, opening_minor, flags, position FROM card")
    found = Found(
        record,
        series,
        position,
        {card: CardState(sum_minor, opening_minor) for card, sum_minor, opening_minor, *_ in cards},
        frozenset(card for card, _, _, flags, _ in cards if flags & HOTLISTED),
        dict(opened.rows("SELECT id, seq FROM request")),
    )
    _check_books(found, totals)
    if max((row[4] for row in cards), default=0) > position:
        raise Broken("a card changed at a position that was not made")
    if opened.value("SELECT count(*) FROM flag"):
        raise Broken("the hub flagged an author that did nothing wrong")
    _check_history(opened, record, projected)
    return found


def _check_books(found: Found, totals: Sequence[int]) -> None:
    facts = [fact for one in found.record.blocks for fact in one.facts]
    openings_minor = sum(fact[2] for fact in facts if fact[1] == Kind.OPENING)
    if list(totals) != [len(facts), sum(fact[2] for fact in facts), openings_minor]:
        raise Broken("the hub's totals are not those of its record")
    expected = plus(dict.fromkeys(map(CardId, found.states), CardState(0, 0)), facts)
    if found.states != expected:
        raise Broken("the hub's balances are not those of its record")


def _check_history(opened: Opened, record: Record, projected: int) -> None:
    expected = [
        (one.block.header.replica, one.block.header.first_seq + number)
        for one in record.blocks[:projected]
        for number in range(len(one.facts))
    ]
    if opened.rows("SELECT replica, seq FROM history ORDER BY id") != expected:
        raise Broken(f"the history is not that of the first {projected} blocks")


def judge(found: Found, said: Said) -> None:
    """Raise Broken unless the image holds all that was acknowledged, and nothing that nobody tried."""
    for replica, seq in said.merged.items():
        if found.record.heads.get(replica, NO_HEAD).seq < seq:
            raise Broken(f"an acknowledged merge is lost: {replica.hex()} up to {seq}")
    for replica, head in found.record.heads.items():
        if replica != _ME and head.seq not in said.ends.get(replica, set()):
            raise Broken(f"a merge of {replica.hex()} is there in part, up to {head.seq}")
    for one in found.record.blocks:
        if one.block.header.replica != _ME and one.block.raw not in said.given:
            raise Broken("the record has a block that nobody sent")
    _judge_bookings(found, said)
    if found.listed not in said.listed[said.listings :]:
        raise Broken("the hotlist is neither the acknowledged one nor the one being made")
    if found.position < said.position:
        raise Broken(f"the position went back from {said.position} to {found.position}")
    if said.position and found.series != said.told.asks[0]:
        raise Broken("the series of the settlement changed")


def _judge_bookings(found: Found, said: Said) -> None:
    lost = said.booked - found.requests.keys()
    if lost:
        raise Broken(f"acknowledged bookings are lost: {sorted(lost)}")
    facts = {one.block.last_seq: one.facts for one in found.record.chain(_ME)}
    if sorted(facts) != sorted(found.requests.values()):
        raise Broken("the hub's own facts are not one for each request")
    for request, seq in found.requests.items():
        if [(fact[0], fact[2]) for fact in facts[seq]] != [said.orders.get(request)]:
            raise Broken(f"{request} booked something else")


def hub_head(found: Found) -> Head:
    """The end of the hub's own chain."""
    return found.record.heads.get(_ME, NO_HEAD)
