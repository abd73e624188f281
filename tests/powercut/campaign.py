"""One run of a load, and all its crash images that there is time for, each checked."""

import contextlib
import gc
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from crdt.errors import LedgerError
from crdt.store.connection import HUB_LAYOUT, TERMINAL_LAYOUT, Layout
from tests.memory import memory
from tests.powercut import hub_check, hub_restart, terminal_check, terminal_restart
from tests.powercut.cuts import cuts
from tests.powercut.disk import Disk, Image, Kept
from tests.powercut.images import Broken, Opened, Opener, Slot, fingerprint
from tests.powercut.load import LOG, STATE, run_load
from tests.powercut.oplog import Operation, What, read_log
from tests.powercut.parties import KEY_FILE, LEDGER, small

RESTART_SHARE: Final = 100  # one of so many distinct images is also opened by the real program's code
_FOUND_FILE: Final = "failure.json"
_KEY_CHARS: Final = 65  # 32 bytes in hex, and the end of the line


@dataclass(frozen=True)
class Party:
    """How the images of one load are checked."""

    layout: Layout  # of its database
    said: Callable[[], Any]  # the model
    nothing: Any  # what an image holds in which nothing has begun
    find: Callable[[Opened], Any]
    judge: Callable[[Any, Any], Any]
    restart: Callable[[Path, Any, Any, Random], None]


PARTIES: Final = {
    "terminal": Party(
        TERMINAL_LAYOUT,
        terminal_check.Said,
        terminal_check.Found(),
        terminal_check.find,
        terminal_check.judge,
        terminal_restart.restart,
    ),
    "hub": Party(
        HUB_LAYOUT,
        hub_check.Said,
        hub_check.Found(),
        hub_check.find,
        hub_check.judge,
        hub_restart.restart,
    ),
}


@dataclass(frozen=True)
class Plan:
    """What to run. All chance follows from it, except the salts that SQLCipher draws for each page."""

    load: str
    seed: int
    steps: int
    per_moment: int  # images of one moment, at most
    flaw: str = ""
    share: int = RESTART_SHARE


@dataclass
class Tally:
    """What was done."""

    images: int = 0
    distinct: int = 0
    restarted: int = 0
    cpu_s: float = 0.0  # of the checks; the machine may have other work
    failure: str = ""  # a sentence; ends the campaign
    kept_in: str = ""  # the directory that replays it


@dataclass(frozen=True)
class Moment:
    """The power fails before operation `index` of the log."""

    index: int
    disk: Disk
    said: Any


def moments(operations: list[Operation], said: Any) -> Iterator[Moment]:
    """Every moment at which a crash leaves something new, or something new was said."""
    disk = Disk()
    fresh = True
    for index, operation in enumerate(operations):
        if operation.what is What.MARK:
            said.hear(operation.mark)
            fresh = True
            continue
        if fresh:
            yield Moment(index, disk, said)
        fresh = disk.apply(operation)
    yield Moment(len(operations), disk, said)


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """A directory for a campaign: in memory where that can be, for thousands of images a second."""
    with tempfile.TemporaryDirectory(dir=memory(), prefix="powercut-") as name:
        yield Path(name)


def run(plan: Plan, library: Path, directory: Path, keep: Path) -> Tally:
    """Run the load in `directory` and check its images; a broken one goes to a new directory in `keep`."""
    run_load(library, directory, plan.load, plan.seed, plan.steps, plan.flaw)
    operations = read_log(directory / LOG)
    _check_log(operations, directory / STATE)
    tally = Tally()
    begun_s = time.process_time()
    checker = Checker(PARTIES[plan.load], directory / "image", plan.share)
    chance = Random(f"cuts {plan.seed}")  # noqa: S311 - the same cuts every time
    with small(), _without_collecting():
        for moment in moments(operations, PARTIES[plan.load].said()):
            for kept in cuts(moment.disk, chance, plan.per_moment):
                tally.images += 1
                try:
                    checker.check(moment.disk.image(kept), moment.said)
                except Broken as problem:
                    tally.failure = f"{plan.load}, seed {plan.seed}, operation {moment.index}: {problem}"
                    tally.kept_in = str(_keep(plan, moment, kept, directory, keep, tally.failure))
                    break
            if tally.failure:
                break
    tally.distinct, tally.restarted = checker.distinct, checker.restarted
    tally.cpu_s = time.process_time() - begun_s
    return tally


class Checker:
    """Checks images, equal ones once: what an image holds is read once and compared with each moment's model.

    Every distinct image is opened with SQLCipher, read page by page and compared; one in `share` is then also
    started with the real `Database` and ledger, and goes on working.
    """

    def __init__(self, party: Party, directory: Path, share: int) -> None:
        self._party = party
        self._slot = Slot(directory)
        self._share = share
        self._opener = Opener()
        self._found: dict[bytes, Any] = {}
        self.restarted = 0

    @property
    def distinct(self) -> int:
        """How many different images there were."""
        return len(self._found)

    def check(self, image: Image, said: Any, *, restart: bool = False) -> None:
        """Raise Broken unless a power cut may leave this image of a program that had `said` so much.

        `restart`: start the real program on it in any case.
        """
        digest = fingerprint(image)
        new = digest not in self._found
        if new:
            self._found[digest] = self._find(image, said)
        found = self._found[digest]
        if said.key and KEY_FILE not in image:
            raise Broken("the ledger's key is lost")
        self._party.judge(found, said)
        if restart or (new and int.from_bytes(digest[:4], "big") % self._share == 0):
            self._restart(image, found, said)

    def _restart(self, image: Image, found: Any, said: Any) -> None:
        """Start the real program's ledger on the image, and let it work. Raises Broken."""
        self.restarted += 1
        self._slot.put(image)
        chance = Random(fingerprint(image))  # noqa: S311 - the same again at a replay
        try:
            self._party.restart(self._slot.directory, found, said, chance)
        except LedgerError as err:
            raise Broken(f"the program does not go on: {type(err).__name__}: {err}") from err
        self._integrity(bytes.fromhex((self._slot.directory / KEY_FILE).read_text()))

    def _find(self, image: Image, said: Any) -> Any:
        key = image.get(KEY_FILE)
        if key is None:
            if LEDGER in image:
                raise Broken("there is a ledger, and no key for it")
            return self._party.nothing
        if len(key) != _KEY_CHARS:
            raise Broken("the ledger's key is there in part")
        if LEDGER not in image:
            return self._party.nothing
        self._slot.put(image)
        with self._opened(bytes.fromhex(key.decode())) as opened:
            problems = opened.rows("PRAGMA integrity_check")
            if problems != [("ok",)]:
                raise Broken(f"the database is damaged: {problems[0][0]}")
            return self._party.find(opened)

    def _opened(self, key: bytes) -> AbstractContextManager[Opened]:
        return self._opener.open(self._slot.directory / LEDGER, key, self._party.layout)

    def _integrity(self, key: bytes) -> None:
        """Every page of the file is authentic, once the program has put its log away."""
        with self._opened(key) as opened:
            problems = opened.rows("PRAGMA cipher_integrity_check")
            if problems:
                raise Broken(f"the database is damaged: {problems[0][0]}")


def replay(kept_in: Path, scratch: Path) -> str:
    """Check a kept image once more, started or not; what is wrong with it, "" for nothing."""
    told = json.loads((kept_in / _FOUND_FILE).read_text())
    operations = read_log(kept_in / LOG)
    party = PARTIES[told["load"]]
    for moment in moments(operations, party.said()):
        if moment.index == told["index"]:
            break
    kept = {
        moment.disk.doubts[number]: None if sectors is None else frozenset(sectors)
        for number, sectors in told["kept"]
    }
    with small():
        try:
            Checker(party, scratch / "image", share=1).check(moment.disk.image(kept), moment.said)
        except Broken as problem:
            return str(problem)
    return ""


def _check_log(operations: list[Operation], state: Path) -> None:
    """What the log adds up to is what is in the directory, byte by byte: the shim missed nothing."""
    disk = Disk()
    for operation in operations:
        disk.apply(operation)
    seen = disk.seen()
    real = {path.name: path.read_bytes() for path in state.iterdir() if not path.name.endswith("-shm")}
    if seen != real:
        names = sorted(name for name in seen.keys() | real.keys() if seen.get(name) != real.get(name))
        raise AssertionError(f"the shim missed something of {names}")


def _keep(plan: Plan, moment: Moment, kept: Kept, directory: Path, keep: Path, problem: str) -> Path:
    target = keep / f"powercut-{plan.load}-{plan.seed}-{moment.index}"
    shutil.rmtree(target, ignore_errors=True)
    (target / "image").mkdir(parents=True)
    for name, contents in moment.disk.image(kept).items():
        (target / "image" / name).write_bytes(contents)
    shutil.copy(directory / LOG, target / LOG)
    numbers = {doubt: number for number, doubt in enumerate(moment.disk.doubts)}
    rows = [[numbers[doubt], None if kept[doubt] is None else sorted(kept[doubt] or ())] for doubt in kept]
    told = {"load": plan.load, "seed": plan.seed, "index": moment.index, "kept": rows, "problem": problem}
    (target / _FOUND_FILE).write_text(json.dumps(told) + "\n")
    return target


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """The garbage collector costs as much as a third of the checks; nothing here makes cycles to speak of."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
