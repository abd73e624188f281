"""kill -9 of the terminal in a loop under taps: nothing acknowledged is lost, nothing is written twice."""

import dataclasses
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.facts import CardId, Kind
from crdt.store.terminal import TerminalLedger
from edge.terminal import Terminal
from tests.edge.authority import Fleet
from tests.edge.conftest import FARES
from tests.edge.program import Bus, Program

KILLS = 10
MOST_TAPS_A_LIFE = 12
LATEST_KILL_S = 0.04
"""After the card was presented. The accepted line comes after some 15 ms: kills fall before and after it."""


@pytest.mark.timeout(240)
def test_no_acknowledged_tap_is_lost_and_none_is_doubled(tmp_path: Path, fleet: Fleet) -> None:
    """Acknowledged: the accepted line was printed. A tap without a line is there once or not at all."""
    bus = Bus(tmp_path)
    bus.configure()
    bus.enrol(fleet, dataclasses.replace(FARES, flat_fare_minor=1))
    chance = random.Random(7)  # noqa: S311  (when to kill, not a secret)
    cards = (CardId(bytes([4, 0, 0, 0, 0, *number.to_bytes(2, "big")])) for number in itertools.count(1))
    accepted: list[CardId] = []
    unanswered: list[CardId] = []
    with bus.reader() as reader:
        for _ in range(KILLS):
            with bus.terminal() as terminal:
                terminal.line_with("ready")
                for card in itertools.islice(cards, chance.randrange(MOST_TAPS_A_LIFE)):
                    present(reader, card)
                    terminal.line_with("accepted")
                    accepted.append(card)
                last = next(cards)
                present(reader, last)
                time.sleep(chance.random() * LATEST_KILL_S)
                said = any("accepted" in line for line in terminal.kill())
                (accepted if said else unanswered).append(last)
                reader.say("remove")
                reader.line_with("removed")
    assert accepted
    with bus.database() as database:
        enrolment = Terminal(database).enrolment
        assert enrolment is not None
        assert [rides(enrolment.ledger, card) for card in accepted] == [1] * len(accepted)
        assert {rides(enrolment.ledger, card) for card in unanswered} <= {0, 1}
        assert sorted(numbers(enrolment.ledger, accepted + unanswered)) == list(
            range(1, enrolment.ledger.status()["head_seq"] + 1)
        ), "no number twice, and none missing"
        assert enrolment.ledger.books().balance


def present(reader: Program, card: CardId) -> None:
    """Put a card on the reader in place of the one before; returns when it lies there."""
    reader.say(f"present ntag215:{card.hex()}")
    reader.line_with("present")


def rides(ledger: TerminalLedger, card: CardId) -> int:
    """How often the card paid. A registration comes with a fare or not at all: they are one transaction."""
    kinds = [fact.kind for fact in ledger.history(card)]
    assert sorted(kinds) in ([], [Kind.FARE, Kind.OPENING])
    return len(kinds) // 2


def numbers(ledger: TerminalLedger, cards: list[CardId]) -> Iterator[int]:
    """The sequence numbers of everything about these cards."""
    return (fact.seq for card in cards for fact in ledger.history(card))
