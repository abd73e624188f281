"""A disk that fails at the k-th write or fsync: a program that tries every k, and checks what is left.

Run with the shim preloaded; each try is a child of its own, forked when everything is imported. So is its
check: a process that has used SQLite is not forked (https://sqlite.org/howtocorrupt.html, 2.6).
"""

import errno
import faulthandler
import json
import logging
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from crdt.errors import StoreError
from tests.powercut.campaign import PARTIES, Checker
from tests.powercut.cuts import cuts
from tests.powercut.disk import Disk
from tests.powercut.images import Broken
from tests.powercut.load import LOADS, LOG, STATE
from tests.powercut.oplog import Operation, What, read_log
from tests.powercut.parties import LEDGER, small
from tests.powercut.shim import FAIL_SYNC, FAIL_WRITE, ROOT, Shim, environment

FAULTS: Final = {  # what fails, with which error, and whether everything after it fails too
    "disk full": (FAIL_WRITE, errno.ENOSPC, True),
    "one bad write": (FAIL_WRITE, errno.EIO, False),
    "one failed fsync": (FAIL_SYNC, errno.EIO, False),
    "a dying disk": (FAIL_SYNC, errno.EIO, True),
}
_IMAGES: Final = 12  # of the moment at which the program ends
_PATIENCE_S: Final = 15  # for one try
_OUTCOME: Final = "outcome"


@dataclass
class Outcome:
    """What came of all tries with one fault."""

    tries: int = 0
    failed: int = 0  # in which the program was told, with a sentence
    images: int = 0
    sentences: dict[str, int] | None = None  # how often each was said
    problem: str = ""  # ends the run


def run_faults(library: Path, directory: Path, load: str, fault: str, steps: int, stride: int) -> Outcome:
    """Try the fault at each `stride`-th call of its kind, in a program of its own."""
    arguments = [load, fault, str(directory), str(steps), str(stride)]
    command = [sys.executable, "-m", "tests.powercut.faults", *arguments]
    ran = subprocess.run(command, env=environment(library), cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return Outcome(**json.loads(ran.stdout))


def main(load: str, fault: str, directory: str, steps: str, stride: str) -> int:
    """Try until the work is done before the call that is to fail; print the outcome as JSON."""
    logging.disable()  # of background work that fails; what callers are told is what counts
    outcome = Outcome(sentences={})
    base = Path(directory).resolve() / "try"
    at = 1
    with small():
        while _try(base, load, fault, at, int(steps), outcome) and not outcome.problem:
            at += int(stride)
    sys.stdout.write(json.dumps(asdict(outcome)))
    return 0


def _try(base: Path, load: str, fault: str, at: int, steps: int, outcome: Outcome) -> bool:
    """Whether the fault came. Adds to the outcome."""
    shutil.rmtree(base, ignore_errors=True)
    (base / STATE).mkdir(parents=True)
    (base / "outside").mkdir()
    told = _in_child(base, partial(_suffer, base, load, fault, at, steps))
    outcome.tries += 1
    if told.get("sentence"):
        outcome.failed += 1
        assert outcome.sentences is not None
        outcome.sentences[told["sentence"]] = outcome.sentences.get(told["sentence"], 0) + 1
    if not told.get("problem"):
        told |= _in_child(base, partial(_check, base, load, bool(told.get("goes_on"))))
        outcome.images += told.get("images", 0)
    if told.get("problem"):
        outcome.problem = f"{load}, {fault} at {at}: {told['problem']}"
    return bool(told.get("came"))


def _in_child(base: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` tells, done in a process of its own; of one that dies or does not end, that it did."""
    child = os.fork()
    if not child:
        faulthandler.dump_traceback_later(_PATIENCE_S, exit=True)
        (base / _OUTCOME).write_text(json.dumps(work()))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        return {"problem": f"the program died ({os.waitstatus_to_exitcode(status)})"}
    told: dict[str, Any] = json.loads((base / _OUTCOME).read_text())
    return told


def _suffer(base: Path, load: str, fault: str, at: int, steps: int) -> dict[str, Any]:
    """Work with the fault ahead: whether it came, what the program was told, what was wrong."""
    told: dict[str, Any] = {}
    shim = Shim()
    shim.begin(base / STATE, base / LOG)
    kind, error, forever = FAULTS[fault]
    shim.fail(kind, at, error, forever=forever)
    chance = Random(f"fault {load}")  # noqa: S311 - the same work every time
    try:
        with LOADS[load](base / STATE, base / "outside", shim, chance) as worker:
            try:
                for _ in range(steps):
                    worker.step()
            except StoreError:
                told["goes_on"] = _goes_on(worker.acknowledge)
                raise
    except StoreError as err:
        told["sentence"] = str(err).replace(str(base), "")
    except BaseException:  # whatever it is, it is no sentence
        told["problem"] = traceback.format_exc()
    told["came"] = shim.failed
    shim.end()
    return told


def _goes_on(acknowledge: Callable[[], None]) -> bool:
    try:
        acknowledge()
    except StoreError:
        return False
    return True


def _check(base: Path, load: str, goes_on: bool) -> dict[str, Any]:
    """Look at what is left, as a restart finds it and as a power cut leaves it.

    `goes_on`: the program acknowledged something after it had been told of a failure. It may where that was
    not the database's: the marks are made anew each time.
    """
    party = PARTIES[load]
    checker = Checker(party, base / "image", share=_IMAGES)
    operations = read_log(base / LOG)
    if goes_on and _failed_file(operations).startswith(LEDGER):
        return {"problem": "the database failed, and then something was acknowledged"}
    disk, said = Disk(), party.said()
    for operation in operations:
        if operation.what is What.MARK:
            said.hear(operation.mark)
        else:
            disk.apply(operation)
    images = [disk.image(kept) for kept in cuts(disk, Random(0), _IMAGES)]  # noqa: S311 - always the same
    try:
        checker.check(disk.seen(), said, restart=True)
        for image in images:
            checker.check(image, said)
    except Broken as problem:
        return {"problem": str(problem)}
    return {"images": 1 + len(images)}


def _failed_file(operations: list[Operation]) -> str:
    """The name of the first file of which a call failed."""
    names = {one.handle: one.name for one in operations if one.what is What.OPEN}
    return next((names[one.handle] for one in operations if one.failed), "")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
