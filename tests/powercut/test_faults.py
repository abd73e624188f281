"""A disk that fails: the program is told in a sentence, goes on with nothing, and has lost nothing."""

from pathlib import Path

import pytest

from tests.needs import needs_program
from tests.powercut.campaign import PARTIES
from tests.powercut.faults import FAULTS, run_faults
from tests.powercut.shim import FAIL_SYNC, FAIL_WRITE, compiled

needs_program("cc", "compile the shim that fails a write")

STEPS = 8
CALLS = {FAIL_WRITE: 120, FAIL_SYNC: 40}  # that the work makes, about
TRIES = 6  # about so many of the calls, evenly; `tests/powercut/run --faults` tries each


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("load", PARTIES)
def test_invariant_4_when_a_write_or_fsync_fails(load: str, fault: str, tmp_path: Path) -> None:
    """Issue 3: "also ENOSPC and EIO at the k-th write"."""
    stride = CALLS[FAULTS[fault][0]] // TRIES
    outcome = run_faults(compiled(tmp_path), tmp_path, load, fault, STEPS, stride)
    assert not outcome.problem
    assert outcome.tries > 3
    assert outcome.failed >= outcome.tries // 3  # a failure that nobody has to know of is told to nobody
    assert outcome.images > outcome.tries
    assert outcome.sentences
    for sentence in outcome.sentences:
        assert sentence.startswith("The ")
        assert "None" not in sentence
