"""What of its own and of others' facts a terminal has on its disk, compared with what was written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from crdt.block import contents, parse
from crdt.facts import Context, Delta, Kind, ReplicaId
from tests.simulation.disks import Disk
from tests.simulation.oracle import Fact, Oracle, expect
from tests.simulation.retention import Span

Spans = dict[ReplicaId, list[tuple[int, int]]]  # of each author the first numbers and the last

_OPEN: Final = "SELECT * FROM open_delta WHERE place < (SELECT again_from FROM terminal) ORDER BY place"
_WRITER_HEAD: Final = "SELECT seq FROM head JOIN terminal ON terminal.replica = head.replica"
_SPANS: Final = "SELECT replica, first_seq, last_seq FROM block"
_RAW: Final = "SELECT raw FROM block WHERE replica = ? ORDER BY first_seq"
_BEYOND: Final = "SELECT raw FROM block WHERE replica = ? AND last_seq > ? ORDER BY first_seq"
_LAST: Final = "SELECT coalesce(max(last_seq), 0) FROM block WHERE replica = ?"


class Record:
    """On one terminal's disk."""

    def __init__(self, disk: Disk, oracle: Oracle) -> None:
        self._disk = disk
        self._oracle = oracle

    def blocks(self) -> set[Span]:
        """What is there of the record."""
        return {(replica, first, last) for replica, first, last in self._disk.rows(_SPANS)}

    def sealed(self, replica: ReplicaId, after_seq: int) -> list[bytes]:
        """An author's blocks beyond a number."""
        return [raw for (raw,) in self._disk.rows(_BEYOND, replica, after_seq)]

    def last(self, replica: ReplicaId) -> int:
        """The number of an author's last sealed fact; 0 where there is none."""
        return int(self._disk.rows(_LAST, replica)[0][0])

    def open_facts(self) -> list[Fact]:
        """What is not sealed."""
        return [_fact(row) for row in self._disk.rows(_OPEN)]

    def last_open(self) -> Fact:
        """The end of it."""
        return _fact(self._disk.rows(_OPEN + " DESC LIMIT 1")[0])

    def spans(self, replica: ReplicaId) -> Spans:
        """Which facts are there, with this author's open segment; what is settled need not be."""
        spans = self.sealed_spans()
        spans.setdefault(replica, []).extend((seq, seq) for seq, _ in self._numbered())
        return spans

    def sealed_spans(self) -> Spans:
        """The same without what is open."""
        spans: Spans = {}
        for replica, first, last in sorted(self.blocks()):
            spans.setdefault(replica, []).append((first, last))
        return spans

    def spans_apart(self, replica: ReplicaId, branch: ReplicaId, *, stopped: bool) -> Spans:
        """The same on storage that was put back: of this author what everybody has, and what is apart."""
        common, apart = self.local(replica, stopped=stopped)
        mine = [(seq, seq) for seq in sorted(common)]
        return {**self.sealed_spans(), replica: mine, branch: [(1, len(apart))]}

    def local(self, replica: ReplicaId, *, stopped: bool) -> tuple[set[int], list[Fact]]:
        """What is there of what everybody has of this author, and what is there beside that.

        What an identity that ended had sealed is written again, under other numbers, until the next one has
        it; where an operator has `stopped` it, some may be in quarantine.
        """
        facts = self._oracle.facts[replica]
        first = min((first for author, first, _ in self.blocks() if author == replica), default=1)
        common = set(range(1, first))  # it has forgotten them, because they are settled
        apart = []
        for delta in self._written(replica):
            fact = Fact(delta.card, delta.kind, delta.amount_minor, delta.at_ms, delta.context)
            if delta.seq <= len(facts) and facts[delta.seq - 1] == fact:
                common.add(delta.seq)
            else:
                apart.append(fact)
        again = {seq for seq, fact in enumerate(facts, 1) if seq not in common and fact in apart}
        apart = [fact for fact in apart if fact not in {facts[seq - 1] for seq in again}]
        whole = common | again == set(range(1, max(common | again, default=0) + 1))
        expect(stopped or whole, f"facts of {replica.hex()} are missing between those that are there")
        return common | again, apart

    def _written(self, replica: ReplicaId) -> Iterator[Delta]:
        for (raw,) in self._disk.rows(_RAW, replica):
            block = parse(raw)
            yield from contents(block).deltas(replica, block.header.first_seq)
        for seq, fact in self._numbered():
            yield Delta(replica, seq, *fact)

    def _numbered(self) -> Iterator[tuple[int, Fact]]:
        """What is not sealed, with the numbers that it has after the sealed head."""
        head_seq = next((seq for (seq,) in self._disk.rows(_WRITER_HEAD)), 0)
        return enumerate(self.open_facts(), head_seq + 1)


def _fact(row: tuple[Any, ...]) -> Fact:
    """The fact in a row of the open segment."""
    _place, card, kind, amount_minor, at_ms, *context = row
    return Fact(card, Kind(kind), amount_minor, at_ms, Context(*context))
