"""Who takes part: keys and certificates, made once a process, the same in every one."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Final

from crdt.certificate import AuthorCertificate, Limits, Role, issue
from crdt.documents import FLEET_DOCUMENT, FleetDocument, SignedDocument
from crdt.facts import CERTIFIED, FleetId, Kind, ReplicaId, TerminalId
from crdt.fleet import REFUSE, FleetSettings
from crdt.signing import SigningKey
from tests.simulation.signatures import SimulatedKey

OPENING_MINOR: Final = 700
FARE_MINOR: Final = 250
TERMINAL_LIMITS: Final = Limits(frozenset((Kind.FARE, Kind.OPENING)), 1000, 1000)
HUB_LIMITS: Final = Limits(CERTIFIED, 100_000, 100_000)

FARES: Final = (  # version n of the fleet's settings is FARES[(n - 1) % len(FARES)]
    FleetSettings(flat_fare_minor=FARE_MINOR, opening_balance_minor=OPENING_MINOR),
    FleetSettings(flat_fare_minor=FARE_MINOR, opening_balance_minor=OPENING_MINOR + 100, passback_window_s=0),
    FleetSettings(flat_fare_minor=FARE_MINOR + 50, negative_ride=False, opening_balance_minor=OPENING_MINOR),
    FleetSettings(flat_fare_minor=FARE_MINOR, unknown_card=REFUSE),
)


@dataclass(frozen=True)
class Author:
    """The key of a terminal or a hub, and its certificate."""

    key: SigningKey
    certificate: AuthorCertificate

    @property
    def replica(self) -> ReplicaId:
        """Who it writes as."""
        return self.key.replica


@dataclass(frozen=True)
class Fleet:
    """A fleet's root and its hub."""

    name: str
    root: SigningKey
    hub: Author

    @property
    def id(self) -> FleetId:
        """The fleet's id."""
        return self.hub.certificate.fleet


def _key(name: str) -> SigningKey:
    return SimulatedKey(sha256(b"simulation " + name.encode()).digest())


@cache
def fleet(name: str) -> Fleet:
    """The fleet of this name."""
    return Fleet(name, _key(f"{name} root"), hub_author(name, 0))


@cache
def hub_author(name: str, number: int) -> Author:
    """The hub of a fleet with its `number`-th key: it gets another whenever it was put back from a backup."""
    root, key = _key(f"{name} root"), _key(f"{name} hub {number}")
    identity = TerminalId(b"hub".ljust(16))
    return Author(key, issue(root, identity, "depot", Role.HUB, key.public_key, HUB_LIMITS))


HOME: Final = fleet("home")
ABROAD: Final = fleet("abroad")


@cache
def author(number: int, identity: int = 0, home: Fleet = HOME) -> Author:
    """Terminal `number` in its `identity`-th pairing."""
    key = _key(f"{home.id.hex()} {number} {identity}")
    terminal = TerminalId(number.to_bytes(16, "big"))
    certificate = issue(home.root, terminal, f"bus {number}", Role.TERMINAL, key.public_key, TERMINAL_LIMITS)
    return Author(key, certificate)


@cache
def fares(version: int, signer: Author) -> SignedDocument:
    """Version `version` of the fleet's settings, as this hub signs it."""
    return SignedDocument.seal(signer.key, HOME.id, FLEET_DOCUMENT, version, _fares_body(version))


@cache
def _fares_body(version: int) -> bytes:
    return FleetDocument.new(FARES[(version - 1) % len(FARES)]).body


@cache
def settings_in(body: bytes) -> FleetSettings:
    """What a terminal reads in a document; automerge costs more than everything else."""
    return FleetDocument.load(body).settings
