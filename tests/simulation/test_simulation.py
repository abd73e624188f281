"""The fleet in simulation: every invariant that ledgers can break, under every fault, from seeds."""

import pytest

from crdt.store import cutting
from tests.simulation.actions import REVOKED, THEMES
from tests.simulation.play import first_failure, play
from tests.simulation.replaying import digests

CLEAN_SEEDS = 190
SEEDS_OF_REVOKED = 40


def test_no_promise_is_broken() -> None:
    """Invariants 1 to 6 and 8 to 11: looked at after every step, and once everything works again."""
    failed = first_failure(0, CLEAN_SEEDS)
    assert failed is None, "\n".join([*failed.trace, failed.failure, f"seed {failed.seed}"])


def test_no_promise_is_broken_while_a_revocation_is_carried_out_fact_by_fact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Crashes, exchanges, put-backs and other lists come between its steps."""
    monkeypatch.setattr(cutting, "STEP_FACTS", 1)
    failed = first_failure(REVOKED, SEEDS_OF_REVOKED, THEMES)
    assert failed is None, "\n".join([*failed.trace, failed.failure, f"seed {failed.seed}"])


def test_a_seed_is_the_same_in_every_process() -> None:
    """ "A failing seed replays exactly": whatever the process's hash seed, and after other seeds."""
    assert len(digests("tests.simulation.main", "--seeds", "12", "--seed", "40")) == 1
    assert play(40, digest=True).digest == play(40, digest=True).digest


def test_a_failure_is_told_with_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "Prints the first failing seed with its step trace"."""
    monkeypatch.setattr("tests.simulation.healing.MAX_ROUNDS", 0)
    failed = first_failure(0, 1)
    assert failed is not None
    assert "no agreement after 0 rounds" in failed.failure
    assert failed.trace[-1] == "heal"
