"""The same deltas in CRDT libraries for documents: merged in memory, unsigned, and summed up card by card.

Each replica's deltas are a list of its own in a document of its own, one item a delta (card, amount, time); a
fresh document takes in all of them and is read back for the balances, which a ledger has to know. Nothing
of it is verified or on a disk. The libraries are in the `bench` extra; one that is not there is left out.
"""

import importlib
import importlib.util
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import zstandard

from crdt.facts import CardId, Delta

ZSTD_LEVEL: Final = 9  # as our own blocks are compressed

Item = tuple[bytes, int, int]  # card, minor units, ms


@dataclass(frozen=True)
class Rival:
    """What a library made of the load."""

    name: str
    deltas_a_second: float
    bytes_a_delta: float


@dataclass(frozen=True)
class _Library:
    update_of: Callable[[int, Sequence[Item]], bytes]
    items_of: Callable[[Sequence[bytes]], Iterable[Item]]


def measure(chains: Sequence[Sequence[Delta]], repetitions: int) -> list[Rival]:
    """Each library that is installed, over the same chains; medians."""
    loads = [[(bytes(d.card), d.amount_minor, d.at_ms) for d in chain] for chain in chains]
    present = {name: make for name, make in _LIBRARIES.items() if importlib.util.find_spec(name)}
    return [_measured(name, make(), loads, repetitions) for name, make in present.items()]


def _measured(name: str, library: _Library, loads: Sequence[Sequence[Item]], repetitions: int) -> Rival:
    updates = [library.update_of(number, load) for number, load in enumerate(loads, 1)]
    count = sum(map(len, loads))
    expected = _balances(item for load in loads for item in load)
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        balances = _balances(library.items_of(updates))
        times.append(time.perf_counter() - began)
        assert balances == expected, f"{name} does not hold the same deltas"
    packed = sum(len(zstandard.ZstdCompressor(ZSTD_LEVEL).compress(update)) for update in updates)
    return Rival(name, count / statistics.median(times), packed / count)


def _balances(items: Iterable[Item]) -> dict[CardId, int]:
    balances: dict[CardId, int] = defaultdict(int)
    for card, amount_minor, _ in items:
        balances[CardId(bytes(card))] += amount_minor
    return balances


def _pycrdt() -> _Library:
    pycrdt: Any = importlib.import_module("pycrdt")

    def update_of(number: int, items: Sequence[Item]) -> bytes:
        document = pycrdt.Doc(client_id=number)
        chain = document.get(str(number), type=pycrdt.Array)
        with document.transaction():
            for card, amount_minor, at_ms in items:  # its numbers are floats
                chain.append([card, float(amount_minor), float(at_ms)])
        return bytes(document.get_update())

    def items_of(updates: Sequence[bytes]) -> Iterable[Item]:
        document = pycrdt.Doc()
        for update in updates:
            document.apply_update(update)
        for number in range(1, len(updates) + 1):
            for card, amount, at in document.get(str(number), type=pycrdt.Array).to_py():
                yield card, int(amount), int(at)

    return _Library(update_of, items_of)


def _loro() -> _Library:
    loro: Any = importlib.import_module("loro")

    def update_of(number: int, items: Sequence[Item]) -> bytes:
        document = loro.LoroDoc()
        document.peer_id = number
        chain = document.get_list(str(number))
        for item in items:
            chain.push(list(item))
        document.commit()
        return bytes(document.export(loro.ExportMode.Updates(loro.VersionVector())))

    def items_of(updates: Sequence[bytes]) -> Iterable[Item]:
        document = loro.LoroDoc()
        document.import_batch(list(updates))
        for chain in document.get_deep_value().values():
            yield from chain

    return _Library(update_of, items_of)


def _automerge() -> _Library:
    from automerge.core import ROOT, Document, ObjType, ScalarType

    def update_of(number: int, items: Sequence[Item]) -> bytes:
        document = Document()
        document.set_actor(number.to_bytes(16, "big"))
        with document.transaction() as transaction:
            chain = transaction.put_object(ROOT, str(number), ObjType.List)
            for at, (card, amount_minor, at_ms) in enumerate(items):
                transaction.insert(chain, 3 * at, ScalarType.Bytes, card)
                transaction.insert(chain, 3 * at + 1, ScalarType.Int, amount_minor)
                transaction.insert(chain, 3 * at + 2, ScalarType.Int, at_ms)
        return document.save()

    def items_of(updates: Sequence[bytes]) -> Iterable[Item]:
        document = Document()
        for update in updates:
            document.merge(Document.load(update))
        for number in range(1, len(updates) + 1):
            found = cast("Any", document.get(ROOT, str(number)))
            values = [value[1] for value, _ in cast("Any", document.values(found[1]))]
            yield from zip(values[::3], values[1::3], values[2::3], strict=True)

    return _Library(update_of, items_of)


_LIBRARIES: Final[dict[str, Callable[[], _Library]]] = {
    "pycrdt": _pycrdt,
    "loro": _loro,
    "automerge": _automerge,
}
