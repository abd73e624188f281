"""Whose turn it is among peers, when anybody on the LAN can make up as many as he likes. A virtual clock."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from crdt.facts import ReplicaId
from edge.addresses import HubAddress
from edge.peer_addresses import MAX_KEPT, PeerAddresses
from edge.peer_announce import PeerRecord
from edge.peer_table import HURRY_S, KEPT_S, MAX_MEMBERS, MAX_STRANGERS, PeerStatus, PeerTable
from edge.peers import LIMITS, MAX_TRIED, REST_S

VEHICLE = "bus 12"
STEP_S = 0.1
TURN_S = LIMITS.connect_s + REST_S + STEP_S
"""The longest that one can take who is not the peer that he says to be."""
POLL_S = 1.0
REAL = HubAddress("192.0.2.2", 2)
DOOR = PeerRecord(ReplicaId(b"R" * 16), VEHICLE, (REAL,))


def lie(number: int, vehicle: str = VEHICLE) -> PeerRecord:
    return PeerRecord(ReplicaId(number.to_bytes(16, "big")), vehicle, (HubAddress("192.0.2.66", number),))


@dataclass
class Bus:
    """What a terminal does with its table, by a virtual clock: only the real door answers, at its address."""

    table: PeerTable = field(default_factory=lambda: PeerTable(random.Random(1).random))  # noqa: S311 - the same every time
    now_s: float = 1_000.0
    tried: list[HubAddress] = field(default_factory=list)
    _ends: dict[ReplicaId, float] = field(default_factory=dict)
    _next_poll_s: float = 0.0

    def until_met(self, announced: Callable[[], Iterable[PeerRecord]], within_s: float) -> float:
        """How long until the real door has answered."""
        began_s = self.now_s
        while not self.is_met():
            assert self.now_s - began_s <= within_s
            self.step(announced)
        return self.now_s - began_s

    def is_met(self) -> bool:
        door = self.table.get(DOOR.replica)
        return door is not None and door.online

    def step(self, announced: Callable[[], Iterable[PeerRecord]]) -> None:
        if self.now_s >= self._next_poll_s:
            self.table.heard(announced(), VEHICLE, self.now_s)
            self._next_poll_s = self.now_s + POLL_S
        for replica in [one for one, end_s in self._ends.items() if end_s <= self.now_s]:
            del self._ends[replica]
        for member in (True, False):
            talking = [self.table.get(replica) for replica in self._ends]
            alike = sum(one is not None and one.member == member for one in talking)
            for _ in range(MAX_TRIED - alike):
                one = self.table.turn(self.now_s, self._ends, member=member, companions=True)
                if one is None:
                    break
                self._try(one)
        self.now_s += STEP_S

    def _try(self, one: PeerStatus) -> None:
        address = one.addresses.next()
        self.tried.append(address)
        self._ends[one.replica] = self.now_s + LIMITS.connect_s + REST_S
        if (one.replica, address) == (DOOR.replica, REAL):
            one.answered(address, self.now_s)
        else:
            one.failed(address, "nobody answers", self.now_s + LIMITS.connect_s)


def test_a_real_door_has_its_turn_beside_any_number_of_lies() -> None:
    """Two doors of one bus see each other's taps, whatever is announced beside them, and first."""
    for number in (8, MAX_STRANGERS - 1):
        lies = [lie(one) for one in range(number)]
        bus = Bus()
        bus.table.heard(lies, VEHICLE, bus.now_s)
        bus.until_met([*lies, DOOR].copy, (number / MAX_TRIED + 2) * TURN_S)


def test_lies_under_new_names_each_second_do_not_come_before_one_who_waits() -> None:
    names = iter(range(10**9))
    bus = Bus()
    bus.table.heard([lie(next(names)) for _ in range(100)], VEHICLE, bus.now_s)
    bus.table.heard([DOOR], VEHICLE, bus.now_s)
    bus.now_s += STEP_S
    bus.until_met(lambda: [*(lie(next(names)) for _ in range(100)), DOOR], (101 / MAX_TRIED + 2) * TURN_S)


def test_one_that_finds_the_table_full_of_lies_gets_a_place() -> None:
    """Who has had his turn for nothing makes room."""
    names = iter(range(10**9))
    bus = Bus()
    bus.table.heard([lie(next(names)) for _ in range(MAX_STRANGERS)], VEHICLE, bus.now_s)
    bus.until_met(lambda: [*(lie(next(names)) for _ in range(9)), DOOR], MAX_STRANGERS * TURN_S)


def test_lies_of_other_vehicles_take_no_companions_place() -> None:
    lies = [lie(one, "bus 13") for one in range(MAX_STRANGERS)]
    bus = Bus()
    bus.table.heard(lies, VEHICLE, bus.now_s)
    bus.until_met(lambda: [*lies, DOOR], TURN_S)


def test_one_whose_certificate_is_held_waits_for_no_stranger() -> None:
    """It has proven before that it is of the fleet; the ledger remembers it over a restart."""
    lies = [lie(one) for one in range(2 * MAX_STRANGERS)]
    bus = Bus()
    bus.table.recognise({DOOR.replica})
    bus.table.heard(lies, VEHICLE, bus.now_s)
    for _ in range(3):
        bus.step(lambda: lies)
    bus.until_met(lambda: [*lies, DOOR], 2 * POLL_S)


def test_lies_in_members_names_end_at_their_turn_too() -> None:
    names = [lie(one) for one in range(MAX_MEMBERS - 1)]
    bus = Bus()
    bus.table.recognise({DOOR.replica, *(record.replica for record in names)})
    bus.table.heard(names, VEHICLE, bus.now_s)
    bus.until_met(lambda: [*names, DOOR], (MAX_MEMBERS / MAX_TRIED + 2) * TURN_S)


def test_lies_in_the_doors_own_name_leave_its_address_a_turn() -> None:
    """TLS refuses who answers there; the real address is tried all the same, and the vehicle believed."""
    wrong = tuple(HubAddress("192.0.2.66", port) for port in range(1, MAX_KEPT))
    lies = [PeerRecord(DOOR.replica, vehicle, wrong[:4]) for vehicle in (VEHICLE, "bus 13", "")]
    lies += [PeerRecord(DOOR.replica, "bus 13", wrong[4:])]
    bus = Bus()
    bus.table.heard(lies, VEHICLE, bus.now_s)
    bus.until_met(lambda: [*lies, DOOR], 2 * MAX_KEPT * (TURN_S + 10))


def test_where_it_has_answered_is_tried_first_and_outlives_lies_and_goodbyes() -> None:
    bus = Bus()
    bus.until_met(lambda: [DOOR], TURN_S)
    door = bus.table.get(DOOR.replica)
    assert door is not None
    for moment in range(100):
        wrong = tuple(HubAddress(f"192.0.2.{moment}", port) for port in range(1, 5))
        bus.table.heard([PeerRecord(DOOR.replica, "bus 13", wrong)], VEHICLE, bus.now_s)
        assert door.companion
        assert door.addresses.next() == REAL
        bus.now_s += 1
    bus.table.heard([], VEHICLE, bus.now_s)
    door.failed(REAL, "it is starting anew", bus.now_s)
    bus.until_met(list, 2 * MAX_KEPT * (TURN_S + 10))


def test_a_door_of_another_vehicle_is_a_companion_no_more() -> None:
    """The last word counts where nobody contradicts it."""
    bus = Bus()
    bus.until_met(lambda: [DOOR], TURN_S)
    moved = PeerRecord(DOOR.replica, "bus 13", DOOR.addresses)
    bus.now_s += KEPT_S + 1
    bus.table.heard([DOOR], VEHICLE, bus.now_s)
    bus.table.heard([moved], VEHICLE, bus.now_s + KEPT_S + 1)
    assert [one.companion for one in bus.table] == [False]
    bus.table.heard([DOOR], VEHICLE, bus.now_s)
    bus.table.heard([DOOR], "bus 14", bus.now_s)
    assert [one.companion for one in bus.table] == [False], "this terminal has moved"


def test_its_own_word_counts_before_what_is_announced_of_it() -> None:
    """A door that moved is no companion from its next answer on; a lie about it changes nothing."""
    bus = Bus()
    bus.until_met(lambda: [DOOR], TURN_S)
    (door,) = bus.table
    companion = []
    door.said(VEHICLE, VEHICLE)
    bus.table.heard([PeerRecord(DOOR.replica, "bus 13", DOOR.addresses)], VEHICLE, bus.now_s + 10 * KEPT_S)
    companion.append(door.companion)
    door.said("bus 13", VEHICLE)
    companion.append(door.companion)
    bus.table.heard([DOOR], VEHICLE, bus.now_s)
    companion.append(door.companion)  # it may have moved back, and is asked
    door.said("", VEHICLE)
    bus.table.heard([DOOR], VEHICLE, bus.now_s)
    companion.append(door.companion)  # what it has answered already is not asked again
    assert companion == [True, False, True, False]


def test_a_member_at_a_new_address_is_tried_soon() -> None:
    """A door that starts again on another port is met within a second or two, whatever its backoff."""
    bus = Bus()
    bus.until_met(lambda: [DOOR], TURN_S)
    (door,) = bus.table
    for _ in range(20):
        door.failed(REAL, "it is off", bus.now_s)
    assert door.not_before_s > bus.now_s + HURRY_S
    again = PeerRecord(DOOR.replica, VEHICLE, (HubAddress("192.0.2.2", 3),))
    bus.table.heard([again], VEHICLE, bus.now_s)
    assert door.not_before_s <= bus.now_s + HURRY_S


@pytest.mark.parametrize("wrong", [8, 64])
def test_many_wrong_addresses_in_the_doors_own_name_make_room_for_the_real_one(wrong: int) -> None:
    """Also those that fail at once, while the door's backoff runs and nobody is tried."""
    addresses = [HubAddress("192.0.2.66", port) for port in range(1, wrong + 1)]
    table = PeerAddresses()
    table.heard(addresses)
    tried: list[HubAddress] = []
    while REAL not in tried and len(tried) < wrong * 2:
        tried.append(table.next())
        if table.failed(tried[-1]):
            table.begin_anew()
            table.heard([*addresses[:4], REAL])
    assert tried[-1] == REAL


def test_a_lie_is_tried_ever_more_seldom() -> None:
    """Invariant 8: no busy loop, over one address or several."""
    spread = PeerRecord(ReplicaId(b"S" * 16), VEHICLE, tuple(HubAddress("192.0.2.66", n) for n in (1, 2, 3)))
    for record in (lie(1), spread):
        bus = Bus()
        for _ in range(6_000):
            bus.step([record].copy)
        seconds = 6_000 * STEP_S
        assert len(bus.tried) <= len(record.addresses) * (seconds / (5 + LIMITS.connect_s) + 6)


def test_the_table_is_bounded_and_forgets() -> None:
    """Invariant 8: memory."""
    bus = Bus()
    bus.table.recognise({lie(one).replica for one in range(1_000)})
    for moment in range(3):
        bus.table.heard([lie(one + moment * 2_000) for one in range(2_000)], VEHICLE, bus.now_s)
        bus.table.heard([lie(one, "") for one in range(2_000)], "", bus.now_s)
    assert len(list(bus.table)) == MAX_MEMBERS + MAX_STRANGERS
    bus.table.heard([], VEHICLE, bus.now_s + KEPT_S + 1)
    assert not list(bus.table)


def test_something_to_tell_hurries_members_only() -> None:
    bus = Bus()
    bus.table.recognise({DOOR.replica})
    bus.table.heard([DOOR, lie(1)], VEHICLE, bus.now_s)
    for one in bus.table:
        for _ in range(10):
            one.failed(one.addresses.next(), "nobody answers", bus.now_s)
    assert bus.table.turn(bus.now_s + 2, (), member=True, companions=True) is None
    bus.table.hurry(bus.now_s + 2)
    door = bus.table.turn(bus.now_s + 2, (), member=True, companions=True)
    assert door is not None
    assert door.replica == DOOR.replica
    assert bus.table.turn(bus.now_s + 2, (), member=False, companions=True) is None
