"""Where the hub may be: the fixed address, the last one that worked, and hints from the network.

An address is never trusted; TLS decides who answers there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from crdt.protocol import DEFAULT_PORT

MAX_HINTS = 8
"""Most addresses from the network that are tried at a time: a liar on the LAN can cost this many attempts."""


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A host (name, IPv4, or IPv6 without brackets) and a TCP port."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def url(self, path: str) -> str:
        """The https URL of `path` (which starts with a slash)."""
        return f"https://{self}{path}"


def parse_address(text: str) -> HubAddress:
    """Read "host", "host:port", "[ipv6]:port", with or without "https://".

    Raises ValueError with what is expected.
    """
    expected = 'an address such as "192.0.2.7", "hub.local:8443" or "https://[2001:db8::7]:8443"'
    try:
        parts = urlsplit(text if "://" in text else f"//{text}", scheme="https")
        port = parts.port
    except ValueError:
        raise ValueError(expected) from None
    host = parts.hostname
    extras = parts.path.rstrip("/") or parts.query or parts.fragment or parts.username
    if not host or extras or parts.scheme != "https" or any(c.isspace() for c in host) or port == 0:
        raise ValueError(expected)
    return HubAddress(host, DEFAULT_PORT if port is None else port)


class AddressBook:
    """All addresses worth trying, best first. Hints come and go; a fixed and a proven address stay."""

    def __init__(self, fixed: HubAddress | None, proven: HubAddress | None) -> None:
        self._fixed = fixed
        self._proven = proven
        self._hints: dict[HubAddress, None] = {}  # in the order of their turns

    @property
    def proven(self) -> HubAddress | None:
        """The last address where this fleet's hub answered."""
        return self._proven

    def hint(self, addresses: Iterable[HubAddress]) -> bool:
        """Replace the hints with what the network says now; True when there is an address not seen before.
        Those that wait for their turn keep it."""
        heard = dict.fromkeys(addresses)
        known = {self._proven, self._fixed, *self._hints}
        waiting = [address for address in self._hints if address in heard]
        self._hints = dict.fromkeys([*waiting, *heard])
        return not known.issuperset(heard)

    def prove(self, address: HubAddress) -> bool:
        """Keep `address`: the fleet's hub has answered there. True when that is news."""
        news = address != self._proven
        self._proven = address
        return news

    def candidates(self) -> list[HubAddress]:
        """Each address once: where it worked last, then the fixed one, then hints, others each time where
        there are too many."""
        known = [address for address in (self._proven, self._fixed) if address is not None]
        turn = [address for address in self._hints if address not in known][:MAX_HINTS]
        for address in turn:
            del self._hints[address]
        self._hints |= dict.fromkeys(turn)
        return [*dict.fromkeys(known), *turn]
