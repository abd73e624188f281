"""Where the hub may be: the fixed address, the last one that worked, and hints from the network.

An address is never trusted; TLS decides who answers there.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlsplit

from crdt.protocol import DEFAULT_PORT
from edge.turns import Turns

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
        self._hints: Turns[HubAddress] = Turns()

    @property
    def proven(self) -> HubAddress | None:
        """The last address where this fleet's hub answered."""
        return self._proven

    @property
    def untried(self) -> bool:
        """Whether there is a hint that has not had its turn yet."""
        known = (self._proven, self._fixed)
        return any(address not in known for address in self._hints.untried)

    def hint(self, addresses: Iterable[HubAddress]) -> None:
        """Replace the hints with what the network says now. Those that wait for their turn keep it."""
        self._hints.see(addresses)

    def prove(self, address: HubAddress) -> bool:
        """Keep `address`: the fleet's hub has answered there. True when that is news."""
        news = address != self._proven
        self._proven = address
        return news

    def tried(self, address: HubAddress) -> None:
        """This one has its turn now, and waits behind the others for the next."""
        self._hints.had(address)

    def candidates(self, but: Container[HubAddress] = ()) -> list[HubAddress]:
        """Each address once, without those in `but`: where it worked last, then the fixed one, then the
        hints whose turn it is."""
        known = [address for address in (self._proven, self._fixed) if address is not None]
        first = [address for address in dict.fromkeys(known) if address not in but]
        turn = (address for address in self._hints if address not in known and address not in but)
        return [*first, *islice(turn, MAX_HINTS)]
