"""Arrival, removal and debounce, on a virtual clock."""

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.cards import PresentedCard
from hardware.errors import CardGarbled, ReaderLost
from hardware.reader import GONE_AFTER_S, Arrived, Event, FirmwareVersion, Presence, Removed, Watcher
from tests.hardware.benches import Clock, bench

A = PresentedCard(bytes.fromhex("DEADBEEF"), b"\x00\x04", 0x08)
B = PresentedCard(bytes.fromhex("04A1B2C3D4E5F6"), b"\x00\x44", 0x00)


def _phone(number: int) -> PresentedCard:
    return PresentedCard(b"\x08" + number.to_bytes(3, "big"), b"\x00\x04", 0x20)


def _watch(looks: Iterable[tuple[float, PresentedCard | None]]) -> list[Event]:
    presence = Presence()
    return [event for now_s, seen in looks for event in presence.observe(seen, now_s)]


def test_a_card_arrives_at_once_and_only_once() -> None:
    assert _watch([(0.0, A), (0.1, A), (9.0, A)]) == [Arrived(A)]


def test_a_missed_look_is_no_removal() -> None:
    assert _watch([(0.0, A), (0.1, None), (0.2, A), (0.6, None), (0.65, A)]) == [Arrived(A)]


def test_a_card_is_removed_when_it_has_been_gone_for_long_enough() -> None:
    assert _watch([(0.0, A), (0.4, None), (GONE_AFTER_S, None), (3.0, None)]) == [Arrived(A), Removed(A)]


def test_the_same_card_can_come_again_after_it_was_removed() -> None:
    assert _watch([(0.0, A), (1.0, None), (1.1, A)]) == [Arrived(A), Removed(A), Arrived(A)]
    assert _watch([(0.0, A), (1.0, B), (2.0, A)]) == [
        Arrived(A),
        Removed(A),
        Arrived(B),
        Removed(B),
        Arrived(A),
    ]


def test_the_next_passengers_card_does_not_wait_for_the_first_to_be_gone() -> None:
    assert _watch([(0.0, A), (0.1, B)]) == [Arrived(A), Arrived(B)]


def test_two_cards_in_one_wallet_seen_in_turns_arrive_once_each() -> None:
    looks = [(at / 10, A if at % 2 else B) for at in range(40)]
    assert _watch(looks) == [Arrived(B), Arrived(A)]


def test_a_phone_that_makes_up_a_number_at_each_look_arrives_once() -> None:
    looks = [(at / 10, _phone(at)) for at in range(40)]
    assert _watch(looks) == [Arrived(_phone(0))]


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([A, B, _phone(1), None])), max_size=60))
def test_arrivals_and_removals_of_each_card_alternate(
    steps: list[tuple[float, PresentedCard | None]],
) -> None:
    presence, now_s, there = Presence(), 0.0, set()
    for pause_s, seen in steps:
        now_s += pause_s
        for event in presence.observe(seen, now_s):
            if isinstance(event, Arrived):
                assert event.card not in there
                there.add(event.card)
            else:
                there.remove(event.card)
        assert set(presence.cards) == there


class ScriptedReader:
    """A Reader that sees what it is told to; a failure is raised."""

    def __init__(self, looks: list[PresentedCard | Exception | None]) -> None:
        self._looks: Iterator[PresentedCard | Exception | None] = iter(looks)

    def open(self) -> FirmwareVersion:
        return FirmwareVersion(0x32, 1, 6, 7)

    def poll(self, timeout_s: float) -> PresentedCard | None:
        look = next(self._looks)
        if isinstance(look, Exception):
            raise look
        return look

    def transceive(self, command: bytes, timeout_s: float) -> bytes:
        raise AssertionError(f"nobody talks to the card here, but {command.hex()} was sent")

    def close(self) -> None:
        pass


def test_a_failing_reader_neither_removes_a_card_nor_charges_it_twice() -> None:
    reader = ScriptedReader([A, ReaderLost("gone"), CardGarbled("what"), A])
    watcher = Watcher(reader, clock_s=Clock(tick_s=10.0), rest=lambda _: None)
    assert watcher.step(1) == [Arrived(A)]
    with pytest.raises(ReaderLost):
        watcher.step(1)
    with pytest.raises(CardGarbled):
        watcher.step(1)
    assert watcher.step(1) == []


def test_a_card_that_goes_on_answering_nonsense_is_reported_once() -> None:
    """Or the lights would flicker and the thread would spin for as long as it lies there."""
    looks: list[PresentedCard | Exception | None] = [CardGarbled("what")] * 3
    clock, rests = Clock(tick_s=0.05), list[float]()
    watcher = Watcher(ScriptedReader([*looks, A, *looks]), clock_s=clock, rest=rests.append)
    with pytest.raises(CardGarbled):
        watcher.step(1)
    assert (watcher.step(1), watcher.step(1)) == ([], [])
    assert len(rests) == 2
    assert watcher.step(1) == [Arrived(A)]
    clock.now_s += GONE_AFTER_S
    with pytest.raises(CardGarbled):
        watcher.step(1)


def test_the_watcher_rests_only_while_a_card_lies_there() -> None:
    """An empty field is looked at without pause, so that a tap is met at once."""
    rests: list[float] = []
    watcher = Watcher(ScriptedReader([None, A, A, None, None]), clock_s=Clock(), rest=rests.append)
    for expected in (0, 0, 1, 2, 2):
        watcher.step(1)
        assert len(rests) == expected


def test_events_from_the_real_driver() -> None:
    """Reader bytes to Arrived and Removed, straight through."""
    with bench("spi") as on:
        on.reader.open()
        clock = Clock()
        watcher = Watcher(on.reader, clock_s=clock, rest=lambda _: None)
        on.present("classic:DEADBEEF")
        assert watcher.step(0.05) == [Arrived(A)]
        on.remove()
        assert watcher.step(0.05) == []
        clock.now_s += GONE_AFTER_S
        assert watcher.step(0.05) == [Removed(A)]
