"""The names in the fleet's TLS certificates: by them a peer knows whom it talks to.

Terminals are servers for each other, so their certificates would do for a hub's too, were it not for the
names: whoever connects insists on the one it expects (RFC 6125), and whoever answers reads the caller's.
They are DNS names that resolve nowhere (`internal` is reserved for private use): TLS libraries check those.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from crdt.errors import UnknownAuthor
from crdt.facts import ID_BYTES, ReplicaId, TerminalId

HUB_TLS_NAME: Final = "hub.farebox.internal"
_TERMINAL: Final = ".terminal.farebox.internal"
_REPLICA: Final = ".replica.farebox.internal"


class TlsIdentity(NamedTuple):
    """Whose TLS certificate it is."""

    terminal: TerminalId
    replica: ReplicaId


def terminal_tls_name(terminal: TerminalId) -> str:
    """The name that a terminal's certificates have for as long as there is the terminal."""
    return terminal.hex() + _TERMINAL


def replica_tls_name(replica: ReplicaId) -> str:
    """The name of the identity that a terminal writes under: what to expect of an announced peer."""
    return replica.hex() + _REPLICA


def tls_identity(dns_names: Iterable[str]) -> TlsIdentity:
    """Who a certificate of the fleet with these DNS names belongs to; UnknownAuthor for no terminal's."""
    names = tuple(dns_names)
    terminals = [_id(name, _TERMINAL) for name in names if name.endswith(_TERMINAL)]
    replicas = [_id(name, _REPLICA) for name in names if name.endswith(_REPLICA)]
    if len(terminals) != 1 or len(replicas) != 1:
        raise UnknownAuthor("the TLS certificate is not a terminal's")
    return TlsIdentity(TerminalId(terminals[0]), ReplicaId(replicas[0]))


def _id(name: str, suffix: str) -> bytes:
    digits = name.removesuffix(suffix)
    try:
        found = bytes.fromhex(digits)
    except ValueError:
        found = b""
    if len(found) != ID_BYTES or found.hex() != digits:
        raise UnknownAuthor("the TLS certificate names no terminal that could be")
    return found
