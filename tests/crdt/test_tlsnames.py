"""A peer is known by the names in its TLS certificate, by nothing that only looks like them (invariant 8)."""

import pytest

from crdt.errors import UnknownAuthor
from crdt.facts import ReplicaId, TerminalId
from crdt.tlsnames import HUB_TLS_NAME, replica_tls_name, terminal_tls_name, tls_identity

TERMINAL = TerminalId(bytes(range(16)))
REPLICA = ReplicaId(bytes(range(16, 32)))
NAMES = [terminal_tls_name(TERMINAL), replica_tls_name(REPLICA)]


def test_a_terminals_names_say_terminal_and_replica() -> None:
    assert tls_identity(NAMES) == tls_identity(reversed([*NAMES, "depot.local"])) == (TERMINAL, REPLICA)


@pytest.mark.parametrize(
    "names",
    [
        [],
        [HUB_TLS_NAME, "localhost"],
        NAMES[:1],
        NAMES[1:],
        [*NAMES, terminal_tls_name(TerminalId(bytes(16)))],
        [NAMES[0].upper(), NAMES[1]],
        [NAMES[0][2:], NAMES[1]],
        ["zz" + NAMES[0][2:], NAMES[1]],
        [NAMES[0][:2] + " " + NAMES[0][2:], NAMES[1]],
    ],
)
def test_other_names_say_nothing(names: list[str]) -> None:
    with pytest.raises(UnknownAuthor):
        tls_identity(names)
