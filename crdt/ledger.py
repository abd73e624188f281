"""The join, in memory: the model that every store is tested against.

A ledger is a set of blocks; merging is set union, and what it says of cards follows from the set alone. It
takes a block only with its author's certificate and when it continues that replica's chain, so a replica's
part of the set is always a prefix of its chain, and a frontier describes the whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from crdt.block import Block, parse, verify
from crdt.certificate import AuthorCertificate
from crdt.columns import Columns
from crdt.digest import state_digest
from crdt.errors import ChainBroken, ForkDetected, InputRefused, NotPermitted, UnknownAuthor
from crdt.facts import NEW_CARD, Books, CardId, CardState, ReplicaId
from crdt.frontier import GENESIS, Head
from crdt.revocations import NONE_REVOKED, Revocations
from crdt.signing import fleet_id


@dataclass(frozen=True, slots=True)
class RefusedInput:
    """A block or certificate that was refused, and why. Nothing was changed by it."""

    raw: bytes
    error: InputRefused


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did."""

    added: tuple[Block, ...]  # in chain order
    known: int  # blocks that were held already
    refused: tuple[RefusedInput, ...]
    heads: dict[ReplicaId, Head]  # of the replicas whose blocks were given and are held: what to acknowledge


class Ledger:
    """A set of verified blocks of one fleet and what it adds up to."""

    def __init__(self, fleet_public_key: bytes, revocations: Revocations = NONE_REVOKED) -> None:
        """An empty ledger of the fleet with this key, and of what its revoked authors wrote in time."""
        self.fleet = fleet_id(fleet_public_key)
        self._revocations = revocations
        self._fleet_public_key = fleet_public_key
        self._authors: dict[ReplicaId, AuthorCertificate] = {}
        self._chains: dict[ReplicaId, list[Block]] = {}
        self._credit_minor: dict[ReplicaId, int] = {}  # of each chain, so far
        self._hashes: set[bytes] = set()
        self._cards: dict[CardId, CardState] = {}
        self._deltas_minor = 0
        self._openings_minor = 0

    def merge(self, blocks: Iterable[bytes], certificates: Iterable[AuthorCertificate] = ()) -> MergeReport:
        """Take in what is new, in any order, each block on its own. Bad input is reported, never raised.

        A block whose predecessors are neither held nor given is refused (ChainBroken): give it again later.
        """
        refused: list[RefusedInput] = []
        self._enrol(certificates, refused)
        added: list[Block] = []
        known = 0
        touched: set[ReplicaId] = set()
        for block in self._parsed(blocks, refused):
            touched.add(block.header.replica)
            if block.hash in self._hashes:
                known += 1
                continue
            try:
                self._add(block, self._checked(block))
                added.append(block)
            except InputRefused as error:
                refused.append(RefusedInput(block.raw, error))
        frontier = self.frontier
        heads = {replica: frontier[replica] for replica in touched if replica in frontier}
        return MergeReport(tuple(added), known, tuple(refused), heads)

    @property
    def frontier(self) -> dict[ReplicaId, Head]:
        """How far this ledger has each replica's chain."""
        return {replica: chain[-1].head for replica, chain in self._chains.items()}

    @property
    def certificates(self) -> dict[ReplicaId, AuthorCertificate]:
        """The authors known here."""
        return dict(self._authors)

    def blocks_after(self, replica: ReplicaId, seq: int) -> list[bytes]:
        """The replica's blocks that end after `seq`, in chain order."""
        return [block.raw for block in self._chains.get(replica, ()) if block.last_seq > seq]

    def balance(self, card: CardId) -> int:
        """The card's balance in minor units; 0 for a card this ledger never met."""
        return self._cards.get(card, NEW_CARD).balance_minor

    def cards(self) -> dict[CardId, CardState]:
        """Every card met, and its sums."""
        return dict(self._cards)

    def books(self) -> Books:
        """The proof that no money was made or lost."""
        states = self._cards.values()
        return Books(
            deltas_minor=self._deltas_minor,
            balances_minor=sum(state.balance_minor for state in states),
            voided_minor=self._openings_minor - sum(state.opening_minor for state in states),
        )

    def digest(self) -> bytes:
        """The state digest, 32 bytes: equal for equal sets of blocks, however they came together."""
        return state_digest(sorted(self.frontier.items()), sorted(self._cards.items()))

    def _enrol(self, certificates: Iterable[AuthorCertificate], refused: list[RefusedInput]) -> None:
        for certificate in certificates:
            try:
                certificate.verify(self._fleet_public_key)
                if self._authors.setdefault(certificate.replica, certificate) != certificate:
                    raise NotPermitted("a key is certified once, and this one already is, otherwise")
            except InputRefused as error:
                refused.append(RefusedInput(certificate.encode(), error))

    def _parsed(self, blocks: Iterable[bytes], refused: list[RefusedInput]) -> list[Block]:
        parsed = []
        for raw in blocks:
            try:
                parsed.append(parse(raw))
            except InputRefused as error:
                refused.append(RefusedInput(raw, error))
        return sorted(parsed, key=lambda block: (block.header.replica, block.header.first_seq, block.raw))

    def _checked(self, block: Block) -> Columns:
        certificate = self._authors.get(block.header.replica)
        if certificate is None:
            raise UnknownAuthor("there is no certificate for the block's author")
        columns = verify(block, certificate)
        self._revocations.check(certificate.replica, block.last_seq)
        chain = self._chains.get(block.header.replica)
        head = chain[-1].head if chain else Head(0, GENESIS)
        if block.header.first_seq <= head.seq:
            raise ForkDetected("the author sealed two different blocks for the same sequence numbers")
        if block.header.first_seq > head.seq + 1:
            raise ChainBroken(
                f"the author's deltas {head.seq + 1} to {block.header.first_seq - 1} are missing"
            )
        if block.header.previous != head.hash:
            raise ChainBroken("the block does not follow the one held before it")
        certificate.check_allowance(self._credit_minor.get(certificate.replica, 0) + columns.credit_minor())
        return columns

    def _add(self, block: Block, columns: Columns) -> None:
        self._chains.setdefault(block.header.replica, []).append(block)
        self._hashes.add(block.hash)
        for card, state in columns.totals().items():
            self._cards[card] = self._cards.get(card, NEW_CARD).combined(state)
        credit_minor = self._credit_minor.get(block.header.replica, 0) + columns.credit_minor()
        self._credit_minor[block.header.replica] = credit_minor
        self._deltas_minor += columns.total_minor()
        self._openings_minor += columns.openings_minor()
