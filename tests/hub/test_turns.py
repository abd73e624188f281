"""Who is let in when a hub is asked for more than it can do ("For a large fleet" in hub/README.md)."""

import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from hub.errors import RequestRefused
from hub.turns import AT_A_TIME, LONGEST_S, MEMORY_S, Pace, Turn, Turns


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Depot:
    """A hub that answers one exchange after the other, and terminals that each want one now and then.

    `between_s`: what the hub takes for one. Who is refused comes again when it was told to, with a jitter.
    """

    terminals: int
    every_s: float
    between_s: float
    most: int = 64
    comes_again: Callable[[int], bool] = lambda _terminal: True
    clock: Clock = field(default_factory=Clock)
    answered: list[tuple[float, int]] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)  # from the first attempt to the answer
    refused: int = 0

    def run(self, seconds: float) -> None:
        source = random.Random(1)  # noqa: S311 - the same every time
        turns, free_s, number = Turns(self.most, self.clock), 0.0, 0
        events: list[tuple[float, int, Callable[[], None]]] = []

        def at(when_s: float, do: Callable[[], None]) -> None:
            nonlocal number
            number += 1
            heapq.heappush(events, (when_s, number, do))

        def come(terminal: int, since_s: float) -> None:
            nonlocal free_s
            place = ExitStack()
            try:
                place.enter_context(turns.taken(str(terminal)))
            except RequestRefused as busy:
                self.refused += 1
                assert busy.retry_after_s is not None
                if self.comes_again(terminal):
                    again_s = self.clock.now_s + busy.retry_after_s + source.random()
                    at(again_s, lambda: come(terminal, since_s))
                return
            place.enter_context(turns.pace.answering())
            free_s = max(free_s, self.clock.now_s) + self.between_s
            at(free_s, lambda: go(terminal, since_s, place))

        def go(terminal: int, since_s: float, place: AbstractContextManager[object]) -> None:
            place.__exit__(None, None, None)
            self.answered.append((self.clock.now_s, terminal))
            self.waited_s.append(self.clock.now_s - since_s)
            next_s = self.clock.now_s + self.every_s
            at(next_s, lambda: come(terminal, next_s))

        for terminal in range(self.terminals):
            first_s = source.uniform(0, self.every_s)
            at(first_s, lambda terminal=terminal, first_s=first_s: come(terminal, first_s))  # type: ignore[misc]
        while events and events[0][0] <= seconds:
            self.clock.now_s, _, do = heapq.heappop(events)
            do()


def test_under_three_times_the_load_it_goes_on_answering_as_many_as_it_can() -> None:
    """No collapse: the hub is never idle while somebody waits, whatever it has to refuse."""
    depot = Depot(terminals=3_000, every_s=30, between_s=0.03)
    depot.run(300)
    late = [when_s for when_s, _ in depot.answered if when_s > 60]
    assert len(late) >= 0.97 * 240 / 0.03
    assert depot.refused <= 2.5 * len(depot.answered), "few refusals for each that is let in"


def test_whoever_was_refused_comes_in_and_none_is_left_behind() -> None:
    """Fairness: a line of a minute and a half is a wait of about that for each, and for nobody three times
    as much."""
    depot = Depot(terminals=3_000, every_s=30, between_s=0.03)
    depot.run(400)
    assert {terminal for _, terminal in depot.answered} == set(range(3_000))
    assert max(depot.waited_s) <= 3 * 60


def test_turns_that_nobody_takes_do_not_leave_the_hub_idle() -> None:
    """After an outage half of those who ask may go away again; the others get their places."""
    depot = Depot(terminals=3_000, every_s=30, between_s=0.03, comes_again=lambda terminal: terminal % 2 == 0)
    depot.run(200)
    late = [when_s for when_s, _ in depot.answered if when_s > 60]
    assert len(late) >= 0.95 * 140 / 0.03


def test_a_hub_that_keeps_up_refuses_nobody() -> None:
    depot = Depot(terminals=1_000, every_s=20, between_s=0.01)
    depot.run(100)
    assert depot.refused == 0


def test_those_who_are_told_to_come_again_are_told_so_one_after_the_other() -> None:
    """Their turns are as far apart as the hub takes for an exchange, and no wait is beyond LONGEST_S."""
    turns = slow_turns()
    with turns.taken("first"):
        waits = [refused(turns, f"bus {number}") for number in range(100)]
    assert waits == [min(LONGEST_S, number) for number in range(1, 101)]


def test_it_keeps_its_turn_however_often_it_asks() -> None:
    """Who asks too early, or again and again, is neither put back nor let in before the others."""
    turns = slow_turns()
    with turns.taken("first"):
        assert [refused(turns, name) for name in ("a", "b", "b", "b", "a")] == [1, 2, 2, 2, 1]


@contextmanager
def crowded(turns: Turns) -> Iterator[list[Turn]]:
    """All four places are taken."""
    with ExitStack() as stack:
        yield [stack.enter_context(turns.taken(name)) for name in "abcd"]


def test_half_of_the_places_are_kept_for_those_whose_turn_has_come() -> None:
    clock = Clock()
    turns = Turns(4, clock)
    with crowded(turns):
        refused(turns, "refused")
    clock.now_s += 1
    with turns.taken("new 1"), turns.taken("new 2"):
        refused(turns, "new 3")
        with turns.taken("refused"):
            pass


def test_a_settlement_that_was_begun_goes_on_while_others_wait() -> None:
    """Each of its pages would else be a turn later, and more would have changed than one page holds."""
    clock = Clock()
    turns = Turns(4, clock)
    with crowded(turns) as begun:
        refused(turns, "refused")
        begun[0].goes_on(0, 1)
    with turns.taken("new 1"), turns.taken("new 2"):
        refused(turns, "b")
        with turns.taken("a"):
            pass
        refused(turns, "a")


@pytest.mark.parametrize(("after", "is_let_in"), [(1, True), (0, False), (2, False)])
def test_only_who_goes_on_where_it_was_has_a_turn_of_its_own_again(after: int, is_let_in: bool) -> None:
    """Who asks for the first page again and again would else never have to wait for a turn."""
    turns = Turns(4, Clock())
    with crowded(turns) as begun:
        refused(turns, "refused")
        begun[0].goes_on(0, 1)
    with turns.taken("new 1"), turns.taken("new 2"):
        with turns.taken("a") as turn:
            turn.goes_on(after, after + 1)
        if is_let_in:
            with turns.taken("a"):
                pass
        else:
            refused(turns, "a")


def test_a_terminal_has_two_exchanges_at_a_time() -> None:
    turns = Turns(64, Clock())
    with ExitStack() as stack:
        for _ in range(AT_A_TIME):
            stack.enter_context(turns.taken("bus"))
        refused(turns, "bus")
        with turns.taken("another"):
            pass
    with turns.taken("bus"):
        pass


def test_the_pace_is_what_was_done_while_there_was_something_to_do() -> None:
    """An idle hour makes the hub neither slower nor quicker."""
    clock = Clock()
    pace = Pace(clock)
    for _ in range(2_000):
        with pace.answering():
            clock.now_s += 0.05
        clock.now_s += 60
    assert pace.between_s == pytest.approx(0.05, rel=0.01)


def slow_turns() -> Turns:
    """Of a hub with one place, which takes a second for an exchange."""
    clock = Clock()
    turns = Turns(1, clock)
    for _ in range(20):
        with turns.pace.answering():
            clock.now_s += MEMORY_S
    return turns


def refused(turns: Turns, who: str) -> int:
    with pytest.raises(RequestRefused) as busy, turns.taken(who):
        pass
    assert busy.value.code == "busy"
    assert busy.value.retry_after_s is not None
    return busy.value.retry_after_s
