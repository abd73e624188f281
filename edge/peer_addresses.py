"""Where one peer may be. An address is never trusted; TLS decides who answers there."""

from collections.abc import Iterable

from edge.addresses import HubAddress
from edge.peer_announce import DOOR_ADDRESSES

MAX_KEPT = 2 * DOOR_ADDRESSES
"""Of one peer at a time: one record that is made up in its name does not fill all the places."""


class PeerAddresses:
    """Where a peer may answer: all that is announced for it, by whomever, in turns."""

    def __init__(self) -> None:
        self._failed: dict[HubAddress, bool] = {}  # in the order of their turns
        self._spent: set[HubAddress] = set()  # those that have failed, also in an earlier round
        self._proven: HubAddress | None = None

    def heard(self, addresses: Iterable[HubAddress]) -> bool:
        """These are announced; whether one is new. Of too many, one that has failed makes room, never where
        it has answered."""
        new = False
        for address in addresses:
            if address not in self._failed and self._has_room():
                self._failed[address] = False
                new = True
        return new

    def next(self) -> HubAddress:
        """Where it answered last, and after failures each in turn."""
        return next(iter(self._failed))

    def failed(self, address: HubAddress) -> bool:
        """It did not answer there: others come first. Whether it has failed at all of them by now."""
        self._failed.pop(address, None)
        self._failed[address] = True
        self._spent.add(address)
        return all(self._failed.values())

    def answered(self, address: HubAddress) -> None:
        """It answers there, as nobody else can."""
        self._proven = address
        self._spent.clear()
        self._failed = {address: False} | dict.fromkeys(self._failed, False)

    def begin_anew(self) -> None:
        """Each has a chance again, and first the one where it has answered before."""
        order = self._failed if self._proven is None else [self._proven, *self._failed]
        self._failed = dict.fromkeys(order, False)

    def _has_room(self) -> bool:
        if len(self._failed) < MAX_KEPT:
            return True
        spent = (one for one in self._failed if one in self._spent and one != self._proven)
        leaving = next(spent, None)
        if leaving is not None:
            del self._failed[leaving]
            self._spent.discard(leaving)
        return leaving is not None
