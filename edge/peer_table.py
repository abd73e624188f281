"""Which peers there are, what came of trying them, and whose turn it is. Times in seconds, as parameters.

Anybody on the LAN can announce anything, as often and under as many names as he likes, so an announcement
earns nothing but a turn. Turns go by waiting: who has waited longest is next, and who was tried waits anew.
So a real terminal's turn comes within bounded time, whatever else is announced. Members, who have shown that
they are of the fleet or whose certificate is held here, have turns of their own, which no stranger can take.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field

from crdt.facts import ReplicaId
from edge.addresses import HubAddress
from edge.backoff import Backoff
from edge.peer_addresses import PeerAddresses
from edge.peer_announce import PeerRecord

RETRY_MIN_S, RETRY_MAX_S = 0.2, 10.0
"""Waits after a peer has failed to answer at all of its addresses."""
KEPT_S = 300.0
"""How long a peer is kept that is not announced and does not answer, and counts as being on the vehicle that
it was announced on. A goodbye is as little believed as a record."""
HURRY_S = 1.0
"""Least wait between two attempts at a member, when there is something to tell it."""
MAX_MEMBERS, MAX_STRANGERS = 256, 256
"""Kept at a time."""


@dataclass(slots=True, eq=False)
class PeerStatus:
    """How it stands with one peer. `at_s`: elapsed time of the last exchange that went well."""

    record: PeerRecord
    """As it was announced last."""
    backoff: Backoff
    waits_since_s: float
    rank: float
    """Among those who have waited as long."""
    member: bool = False
    """Whether it has shown that it is of the fleet, now or to the ledger."""
    companion: bool = False
    address: HubAddress | None = None
    online: bool = False
    at_s: float | None = None
    trouble: str = "not met yet"
    brought: int = 0
    """Blocks it has brought here."""
    addresses: PeerAddresses = field(default_factory=PeerAddresses)
    not_before_s: float = 0.0
    tried: bool = False
    _said: str | None = None
    """The vehicle that it says itself to be on, until it is announced on the terminal's."""
    _heard_s: float = 0.0
    _aboard: tuple[str, float] = ("", 0.0)
    """The vehicle of the terminal that it was announced on, and when it last was."""

    @property
    def replica(self) -> ReplicaId:
        """Who it is to be; TLS shows whether it is."""
        return self.record.replica

    def heard(self, record: PeerRecord, vehicle: str, now_s: float) -> None:
        """It is announced; `vehicle` is this terminal's own, "" for none."""
        if record.vehicle == vehicle != self.record.vehicle:
            self._said = None  # it may have moved here, and is asked
        self.record, self._heard_s = record, now_s
        if self.addresses.heard(record.addresses) and self.member:
            self.hurry(now_s)
        if vehicle and record.vehicle == vehicle:
            self._aboard = (vehicle, now_s)

    def settle(self, vehicle: str, now_s: float) -> None:
        """Whether it is a companion. One record that contradicts another does not end it at once, if ever
        where it says itself otherwise."""
        aboard, at_s = self._aboard
        if self._said is not None:
            self.companion = bool(vehicle) and self._said == vehicle
        else:
            lately = self.record.vehicle == aboard or now_s - at_s <= KEPT_S
            self.companion = bool(vehicle) and aboard == vehicle and lately

    def said(self, aboard: str, vehicle: str) -> None:
        """It says which vehicle it is on, and TLS that it is itself; `vehicle` is this terminal's own."""
        self._said = aboard
        self.companion = bool(vehicle) and aboard == vehicle

    def hurry(self, now_s: float) -> None:
        """It is worth a try before its turn."""
        self.not_before_s = min(self.not_before_s, max(now_s, self.waits_since_s + HURRY_S))

    def is_gone(self, now_s: float) -> bool:
        """Nobody has announced it for long, nor has it answered."""
        answers = self.online and self.companion
        return not answers and now_s - max(self._heard_s, self.at_s or 0.0) > KEPT_S

    def answered(self, address: HubAddress, now_s: float) -> None:
        """An exchange went well."""
        self.online, self.trouble, self.address, self.at_s = True, "", address, now_s
        self.member = self.tried = True
        self.waits_since_s = now_s
        self.addresses.answered(address)
        self.backoff.reset()

    def failed(self, address: HubAddress, trouble: str, now_s: float) -> None:
        """An exchange did not. It waits for its next turn, and longer each time that no address is left."""
        self.online, self.trouble, self.tried = False, trouble, True
        self.waits_since_s = self.not_before_s = now_s
        if self.addresses.failed(address):
            self.addresses.begin_anew()
            self.not_before_s += self.backoff.next_s()


class PeerTable:
    """All peers that are announced, or that answered lately."""

    def __init__(self, uniform: Callable[[], float]) -> None:
        """`uniform` draws from 0 to 1, so that buses which start together do not try in the same order."""
        self._uniform = uniform
        self._peers: dict[ReplicaId, PeerStatus] = {}
        self._members: Container[ReplicaId] = frozenset()

    def __iter__(self) -> Iterator[PeerStatus]:
        return iter(list(self._peers.values()))

    def get(self, replica: ReplicaId) -> PeerStatus | None:
        """The peer; None when it is not known, or not any more."""
        return self._peers.get(replica)

    def heard(self, records: Iterable[PeerRecord], vehicle: str, now_s: float) -> None:
        """These are announced now; more than one may claim to be of the same peer, and each is a hint."""
        full: set[object] = set()
        for record in sorted(records, key=lambda _record: self._uniform()):
            status = self._peers.get(record.replica) or self._add(record, vehicle, now_s, full)
            if status is not None:
                status.heard(record, vehicle, now_s)
        for status in self:
            status.settle(vehicle, now_s)
            if status.is_gone(now_s):
                del self._peers[status.replica]

    def recognise(self, members: Container[ReplicaId]) -> bool:
        """The certificates of these are held; whether one of them was a stranger until now."""
        self._members = members
        found = [one for one in self if not one.member and one.replica in members]
        for status in found:
            status.member = True
        return bool(found)

    def turn(
        self, now_s: float, busy: Container[ReplicaId], *, member: bool, companions: bool
    ) -> PeerStatus | None:
        """Who has waited longest, of the members or of the strangers; `companions`: of them only."""
        waiting = [
            one
            for one in self
            if one.member == member
            and (one.companion or not companions)
            and one.replica not in busy
            and one.not_before_s <= now_s
        ]
        return min(waiting, key=lambda one: (one.waits_since_s, one.rank), default=None)

    def hurry(self, now_s: float) -> None:
        """There is something to tell: members that are companions and do not answer are tried soon."""
        for one in self:
            if one.member and one.companion and not one.online:
                one.hurry(now_s)

    def due_s(self, busy: Container[ReplicaId]) -> float | None:
        """When the next companion may be tried; None when none waits."""
        waiting = (one.not_before_s for one in self if one.companion and one.replica not in busy)
        return min(waiting, default=None)

    def _add(self, record: PeerRecord, vehicle: str, now_s: float, full: set[object]) -> PeerStatus | None:
        """A peer that is new, if it finds a place; `full`: those for whom there was none a moment ago."""
        aboard, member = bool(vehicle) and record.vehicle == vehicle, record.replica in self._members
        if (aboard, member) in full:
            return None
        if not self._has_room(aboard, member):
            full.add((aboard, member))
            return None
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S, self._uniform)
        status = PeerStatus(record, backoff, now_s, self._uniform(), member)
        self._peers[record.replica] = status
        return status

    def _has_room(self, aboard: bool, member: bool) -> bool:
        """Where there are too many, who has had its turn for nothing makes room; and for one that says to be
        aboard, whoever does not."""
        alike = [one for one in self if one.member == member]
        if len(alike) < (MAX_MEMBERS if member else MAX_STRANGERS):
            return True
        spent = [one for one in alike if not one.online and (one.tried or (aboard and not one.companion))]
        leaving = min(spent, key=lambda one: (one.companion, one.waits_since_s), default=None)
        if leaving is not None:
            del self._peers[leaving.replica]
        return leaving is not None
