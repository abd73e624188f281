"""Is this crash image one that a terminal may have after a power cut?"""

from dataclasses import dataclass, field
from typing import Final

from crdt.block import Block
from crdt.facts import CardId, CardState, ReplicaId
from crdt.frontier import Head, joined
from crdt.settlement import Page, parse_page
from crdt.store.blocks import NO_HEAD
from crdt.store.settled import STANDING_COLUMNS, Standing
from tests.powercut.images import Broken, Opened
from tests.powercut.oplog import Mark
from tests.powercut.parties import ME, OTHERS
from tests.powercut.record import Record, read_record, verified
from tests.powercut.settling import Fact, Settled, digest, plus

_ME: Final = ME.key.replica
_OTHERS: Final = frozenset(author.key.replica for author in OTHERS)
_STANDING: Final = f"SELECT {', '.join(STANDING_COLUMNS)} FROM terminal"  # noqa: S608 - our own names
_SETTLED: Final = "SELECT card, sum_minor, opening_minor FROM settled WHERE generation = ?"
_SETTLED_HEADS: Final = "SELECT replica, seq, hash FROM settled_head WHERE generation = ?"


@dataclass
class Said:
    """What the terminal had said at some moment: the model of what its disk has to hold."""

    key: bool = False
    tried: list[Fact] = field(default_factory=list)
    tapped: int = 0  # how many of them were acknowledged
    pages: list[Page] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=lambda: [Settled()])  # after each page, and before all
    paged: int = 0
    carrying: list[Block] = field(default_factory=list)  # of other terminals
    carried: int = 0  # how many of them were acknowledged
    documents: list[bytes | None] = field(default_factory=lambda: [None])
    documented: int = 0

    def hear(self, mark: Mark) -> None:
        """It said this too."""
        match mark["mark"]:
            case "key":
                self.key = True
            case "try":
                self.tried += [(bytes.fromhex(card), *rest) for card, *rest in mark["facts"]]
            case "tapped":
                self.tapped = len(self.tried)
            case "page":
                self.pages.append(parse_page(bytes.fromhex(mark["raw"])))
                self.settled.append(self.settled[-1].taking(self.pages[-1]))
            case "paged":
                self.paged = len(self.pages)
            case "carry":
                known = {block.hash for block in self.carrying}
                given = [verified(bytes.fromhex(raw)).block for raw in mark["raws"]]
                self.carrying += [block for block in given if block.hash not in known]
            case "carried":
                self.carried = len(self.carrying)
            case "document":
                self.documents.append(bytes.fromhex(mark["raw"]))
            case "documented":
                self.documented = len(self.documents) - 1


@dataclass(frozen=True)
class Found:
    """What an image holds. Starts as that of a terminal that has not begun."""

    record: Record = field(default_factory=lambda: Record((), {}))
    facts: tuple[Fact, ...] = ()  # this terminal's own, sealed and open
    standing: Standing = field(default_factory=Standing)
    cards: dict[CardId, CardState] = field(default_factory=dict)  # settled
    heads: dict[ReplicaId, Head] = field(default_factory=dict)  # settled
    document: bytes | None = None

    @property
    def sealed(self) -> int:
        """The number of its last sealed fact."""
        return self.record.heads.get(_ME, NO_HEAD).seq


def find(opened: Opened) -> Found:
    """Read an image's database. Raises Broken where it contradicts itself."""
    if not opened.has_table("terminal"):
        return Found()
    suspended = opened.value("SELECT suspended FROM terminal")
    if suspended is None:
        return Found()
    if suspended:
        raise Broken("the terminal took a power cut for a restored backup: it is suspended")
    record = read_record(opened, _OTHERS)
    standing = Standing(*opened.rows(_STANDING)[0])
    heads = opened.rows(_SETTLED_HEADS, standing.head_generation)
    return Found(
        record,
        _facts(opened, record),
        standing,
        _cards(opened, standing.base_generation) | _cards(opened, standing.overlay_generation),
        {ReplicaId(replica): Head(seq, hash_) for replica, seq, hash_ in heads},
        opened.value("SELECT raw FROM document"),
    )


def _facts(opened: Opened, record: Record) -> tuple[Fact, ...]:
    sealed = [fact for one in record.chain(_ME) for fact in one.facts]
    rows = opened.rows("SELECT place, card, kind, amount_minor, at_ms FROM open_delta ORDER BY place")
    if [row[0] for row in rows] != list(range(len(sealed) + 1, len(sealed) + len(rows) + 1)):
        raise Broken("the open segment does not continue the sealed chain")
    return (*sealed, *(row[1:] for row in rows))


def _cards(opened: Opened, generation: int) -> dict[CardId, CardState]:
    rows = opened.rows(_SETTLED, generation)
    return {card: CardState(sum_minor, opening_minor) for card, sum_minor, opening_minor in rows}


def judge(found: Found, said: Said) -> Settled:
    """The settlement that shows in the image. Raises Broken unless it holds all that was acknowledged.

    And nothing that the terminal did not at least try; each tap whole or not at all.
    """
    count = len(found.facts)
    if count < said.tapped:
        raise Broken(f"{said.tapped - count} acknowledged taps are lost, of {said.tapped}")
    if count not in (said.tapped, len(said.tried)):
        raise Broken(f"{count} facts: neither the {said.tapped} acknowledged nor the {len(said.tried)} tried")
    if found.facts != tuple(said.tried[:count]):
        raise Broken("the facts are not those that were written")
    if found.document not in said.documents[said.documented :]:
        raise Broken("the settings document is neither the acknowledged one nor the one being put")
    shown = _shown(found, said)
    if shown.heads.get(_ME, NO_HEAD).seq > found.sealed:
        raise Broken("the settlement includes more than was written")
    _judge_carried(found, said, shown)
    return shown


def _judge_carried(found: Found, said: Said, shown: Settled) -> None:
    """Every block of others that was acknowledged is held, or settled; and no block that nobody gave."""
    held = {one.block.hash for one in found.record.blocks if one.block.header.replica != _ME}
    if not held <= {block.hash for block in said.carrying}:
        raise Broken("the record has a block that nobody gave")
    for replica in _OTHERS & found.record.heads.keys():
        chain = found.record.chain(replica)
        end = chain[-1].block.last_seq if chain else 0
        if found.record.heads[replica].seq > max(end, shown.heads.get(replica, NO_HEAD).seq):
            raise Broken(f"the head of {replica.hex()} is beyond what is held and settled")
    for block in said.carrying[: said.carried]:
        if block.hash not in held and block.last_seq > shown.heads.get(block.header.replica, NO_HEAD).seq:
            raise Broken(f"an acknowledged block of {block.header.replica.hex()} is lost: {block.last_seq}")


def _shown(found: Found, said: Said) -> Settled:
    standing = found.standing
    for number in reversed(range(said.paged, len(said.settled))):  # later ones have more staged
        settled = said.settled[number]
        asks = settled.asks_during(said.pages[number]) if number < len(said.pages) else {settled.asks}
        if (standing.series, standing.position) == (settled.series, settled.position) and (
            standing.next_page in asks
        ):
            if found.cards != settled.states():
                raise Broken("the settled balances are not those of the settlement installed")
            if found.heads != settled.heads:
                raise Broken("the settled heads are not those of the settlement installed")
            return settled
    raise Broken("the settlement is neither the one installed nor the one being installed")


def held_facts(found: Found, settled: Settled) -> list[Fact]:
    """What the terminal holds beyond the settlement, of its own and of others."""
    facts = list(found.facts[settled.heads.get(_ME, NO_HEAD).seq :])
    for one in found.record.blocks:
        header = one.block.header
        if header.replica != _ME and header.first_seq > settled.heads.get(header.replica, NO_HEAD).seq:
            facts += one.facts
    return facts


def believed(found: Found, settled: Settled) -> dict[CardId, CardState]:
    """What the terminal has to believe of every card."""
    return plus(settled.states(), held_facts(found, settled))


def believed_digest(found: Found, settled: Settled) -> bytes:
    """The state digest that follows."""
    return digest(joined(settled.heads, found.record.heads), believed(found, settled))
