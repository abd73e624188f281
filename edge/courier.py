"""Courier files on a running terminal: its ledger onto a stick, and a stick's blocks into its ledger.

A file is bytes of crdt.courier. Steps of either may wait for the disk and are for a thread; each uses the
ledger for a moment only, so that taps and the uplink go on meanwhile.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from crdt.block import Block, parse
from crdt.certificate import AuthorCertificate
from crdt.courier import OF_NO_USE, CourierReader, CourierWriter, lacks_room
from crdt.errors import InputRefused, LedgerError, RefusalCode
from crdt.facts import ReplicaId
from crdt.frames import BlockFrame, CertificateFrame, DocumentFrame, Hello
from crdt.frontier import Frontier, Head, joined, missing, without
from crdt.ledger import RefusedInput
from crdt.session import Event, Refused
from edge import revoked_list
from edge.errors import ControlError
from edge.identity import Identity
from edge.terminal import Enrolment, Terminal

PART_BYTES = 256 * 1024
"""Of blocks, in one step."""
MAX_TOLD = 32
"""Of the reasons for refusals, and of gaps, in a report; the rest are counted."""


def enrolled(terminal: Terminal) -> Enrolment:
    """The enrolment. Raises ControlError where there is none, and so no ledger."""
    enrolment = terminal.enrolment
    if enrolment is None:
        raise ControlError("This terminal is not paired yet, so it has no ledger: farebox-tech pair CODE")
    return enrolment


class Export:
    """One courier file of all that a terminal holds and keeps, or of what lies beyond some numbers."""

    def __init__(self, terminal: Terminal, after: Mapping[ReplicaId, int] | None = None) -> None:
        """Seals the open taps, so that they are in it; those of a suspended ledger stay open. `after`: leave
        out each replica's facts up to there; None leaves out what the hub's settlement includes. Waits.
        Raises ControlError or LedgerError."""
        self._terminal = terminal
        enrolment = enrolled(terminal)
        self._identity: Identity = enrolment.identity
        self._ledger = enrolment.ledger
        with terminal.syncing(self._identity):
            self._ledger.seal()
            waiting = self._ledger.status()["open"] if self._ledger.suspended else 0
            self.unsealed = waiting + self._ledger.kept_back()
            """Taps that cannot be in the file: a new identity has to seal them, or to write them again."""
            self._held = self._ledger.heads()
            self._list = revoked_list.newer_than(self._ledger, 0)
            self._ends = {**self._ledger.keepsake.heads(), **self._held}
            settled = self._ledger.settled_frontier() if after is None else {}
        self._after = {replica: head.seq for replica, head in settled.items()} if after is None else after
        gaps = [gap for gap in map(self._gap, self._ends) if gap]
        self.deltas = sum(gaps)
        """At most how many there are to write."""
        if too_many := lacks_room(len(gaps)):
            raise ControlError(
                f"Nothing was exported: {too_many}. The taps are safe in the terminal. Leave out what the hub"
                " has signed for (export FILE --since settlement), or bring the terminal to its hub."
            )

    def _gap(self, replica: ReplicaId) -> int:
        return max(0, self._ends[replica].seq - self._after.get(replica, 0))

    def parts(self) -> Iterator[bytes]:
        """The bytes of the file, in pieces. Waits. Raises Superseded when the terminal is paired anew."""
        writer = CourierWriter(self._identity.fleet, self._identity.replica)
        written: dict[ReplicaId, Head] = {}
        yield writer.beginning(self._held) + b"".join(map(writer.message, self._list))
        for replica in sorted(self._ends, key=lambda each: (each not in self._held, each)):
            if self._gap(replica):
                yield from self._chain(writer, replica, written)
        yield writer.end(written)

    def _chain(
        self, writer: CourierWriter, replica: ReplicaId, written: dict[ReplicaId, Head]
    ) -> Iterator[bytes]:
        seq, until = self._after.get(replica, 0), self._ends[replica].seq
        yield writer.message(CertificateFrame(self._ledger.authors()[replica].encode()))
        while seq < until:
            with self._terminal.syncing(self._identity):
                raws = self._some(replica, seq)
            if not raws:  # the last ones were forgotten meanwhile: they are settled
                return
            yield b"".join(writer.message(BlockFrame(raw)) for raw in raws)
            head = parse(raws[-1]).head
            written[replica], seq = head, head.seq

    def _some(self, replica: ReplicaId, seq: int) -> list[bytes]:
        if replica in self._held:
            return self._ledger.blocks_after(seq, PART_BYTES, replica)
        return self._ledger.keepsake.blocks_after(replica, seq, PART_BYTES)


class Reason(NamedTuple):
    """Why blocks or certificates were refused, and whose they are."""

    replica: str
    """In hex; "" where nobody knows."""
    code: RefusalCode | None
    """None for some that are too many to tell apart."""
    message: str
    kept: bool = False
    """In quarantine: of another branch than the one that counts here, or written after a revocation."""

    def told(self, blocks: int) -> dict[str, Any]:
        """Of so many, as JSON."""
        code = "more" if self.code is None else self.code.name.lower()
        return {**self._asdict(), "code": code, "blocks": blocks}


@dataclass
class Import:
    """One courier file into the ledger. Every block is verified; what is held already changes nothing."""

    terminal: Terminal
    new: int = 0
    known: int = 0
    """Blocks that were new, and that were held already."""
    settled: int = 0
    """Blocks from before the settlement that are not held: only the hub can tell whether it has the same."""
    deltas: int = 0
    """In the new ones."""
    unusable: str = ""
    """Why the file could not be read to its end, a sentence; "" when it could."""
    damaged: bool = False
    """And whether another copy of it may be read further."""
    _reasons: Counter[Reason] = field(default_factory=Counter)
    _kept: dict[ReplicaId, set[tuple[int, int]]] = field(default_factory=lambda: defaultdict(set))
    _claimed: Frontier = field(default_factory=dict)
    _blocks: list[bytes] = field(default_factory=list)
    _certificates: list[AuthorCertificate] = field(default_factory=list)
    _waiting_bytes: int = 0

    def __post_init__(self) -> None:
        """Raises ControlError on a terminal that has no ledger."""
        enrolment = enrolled(self.terminal)
        self._identity = enrolment.identity
        self._ledger = enrolment.ledger
        self._reader = CourierReader(self._identity.fleet, self._identity.replica)

    def take(self, data: bytes) -> None:
        """The next bytes of the file. Waits. Raises Superseded or StoreError."""
        self._heard(self._reader.receive_data(data))
        if self._waiting_bytes >= PART_BYTES:
            self._merge()

    def end(self) -> dict[str, Any]:
        """The file's end; what was done, as JSON. Waits. Raises Superseded or StoreError."""
        self._heard(self._reader.receive_eof())
        self._merge()
        with self.terminal.syncing(self._identity):
            held = self._ledger.heads()
        promised = missing(joined(self._claimed, self._reader.heads or {}), held)
        gaps = [rest for gap in promised for rest in without(gap, self._kept.get(gap.replica, ()))]
        return {
            "new": self.new,
            "known": self.known,
            "settled": self.settled,
            "deltas": self.deltas,
            "unusable": self.unusable,
            "damaged": self.damaged,
            "refused": [reason.told(count) for reason, count in self._reasons.items()],
            "missing": [
                {"replica": gap.replica.hex(), "first": gap.after_seq + 1, "last": gap.until_seq}
                for gap in gaps[:MAX_TOLD]
            ],
            "missing_more": len(gaps[MAX_TOLD:]),
        }

    def _heard(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Hello(frontier=frontier):
                    self._claimed = frontier
                case CertificateFrame(raw):
                    self._certificate(raw)
                    self._waiting_bytes += len(raw)
                case DocumentFrame(raw):
                    self._take_list(raw)
                case BlockFrame(raw):
                    self._blocks.append(raw)
                    self._waiting_bytes += len(raw)
                case Refused(text=text, code=code):
                    self.unusable, self.damaged = text, code not in OF_NO_USE

    def _certificate(self, raw: bytes) -> None:
        try:
            self._certificates.append(AuthorCertificate.decode(raw))
        except InputRefused as error:
            self._refuse(Reason("", error.code, str(error)))

    def _take_list(self, raw: bytes) -> None:
        """Of revocations; what comes after it counts by it."""
        presented = list(self._certificates)
        self._merge()
        try:
            with self.terminal.syncing(self._identity):
                revoked_list.take(self._identity, self._ledger, raw, presented)
        except InputRefused as error:
            self._refuse(Reason("", error.code, str(error)))

    def _merge(self) -> None:
        blocks, self._blocks, self._waiting_bytes = self._blocks, [], 0
        certificates, self._certificates = self._certificates, []
        if not blocks and not certificates:
            return
        with self.terminal.syncing(self._identity):
            report = self._ledger.merge(blocks, certificates)
            self._tell(report.refused)
            others = {block.raw for block in report.added} | {refused.raw for refused in report.refused}
            settled = sum(not self._holds(raw) for raw in blocks if raw not in others)
        self.new += len(report.added)
        self.known += report.known - settled
        self.settled += settled
        self.deltas += sum(block.header.count for block in report.added)

    def _holds(self, raw: bytes) -> bool:
        """Whether a block that was no news is held, or is the very end of what is settled."""
        block = parse(raw)
        replica = block.header.replica
        return (
            self._ledger.holds(block) or self._ledger.settled_frontier([replica]).get(replica) == block.head
        )

    def _tell(self, refused: Sequence[RefusedInput]) -> None:
        """Note these, and where the quarantine has them: what is there is not missing."""
        blocks = {one.raw: block for one in refused if (block := _block(one.raw)) is not None}
        kept = self._ledger.kept_as_evidence([block.hash for block in blocks.values()])
        for one in refused:
            block = blocks.get(one.raw)
            code, is_kept = one.error.code, block is not None and block.hash in kept
            if block is not None and is_kept:
                self._kept[block.header.replica].add((block.header.first_seq, block.last_seq))
                # Whatever of its branch was met before it: it is beside what counts, or came too late.
                code = code if code is RefusalCode.REVOKED else RefusalCode.FORK_DETECTED
            self._refuse(Reason(_author(block), code, str(one.error), is_kept))

    def _refuse(self, reason: Reason) -> None:
        if reason not in self._reasons and len(self._reasons) >= MAX_TOLD:
            reason = Reason("", None, "and others")
        self._reasons[reason] += 1


def _block(raw: bytes) -> Block | None:
    """None for what is no block: a certificate, or damaged."""
    try:
        return parse(raw)
    except LedgerError:
        return None


def _author(block: Block | None) -> str:
    return "" if block is None else block.header.replica.hex()
