"""The terminal's identity: one consistent record in the encrypted database, and nothing half-believed."""

import json
import os
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from crdt.certificate import Role
from crdt.store.connection import TERMINAL_LAYOUT
from crdt.store.database import Database
from edge.errors import IdentityError
from edge.identity import SECRET, checked, load_identity, new_keys
from tests.edge.authority import Fleet

FLEET, OTHER = Fleet(1), Fleet(2)
KEYS = new_keys(os.urandom)


class Memory:
    """A secret store without a disk."""

    def __init__(self, value: bytes | None = None) -> None:
        self.value = value

    def get_secret(self, name: str) -> bytes | None:
        assert name == SECRET
        return self.value


def test_it_survives_the_encrypted_database(tmp_path: Path) -> None:
    identity = FLEET.enrol(KEYS)
    key = os.urandom(32)
    with Database.open(tmp_path / "ledger.db", key, layout=TERMINAL_LAYOUT) as database:
        assert load_identity(database) is None
        database.put_secret(SECRET, identity.encode())
    with Database.open(tmp_path / "ledger.db", key, layout=TERMINAL_LAYOUT) as database:
        assert load_identity(database) == identity
    assert identity.fleet == FLEET.id
    assert identity.replica == KEYS.signing.replica
    for file in tmp_path.iterdir():
        assert KEYS.seed not in file.read_bytes(), "no key lies on the disk in the clear"


def test_no_key_shows_in_a_representation() -> None:
    """A log line or a traceback must not give a key away."""
    shown = repr(FLEET.enrol(KEYS))
    assert KEYS.seed.hex() not in shown
    assert repr(KEYS.seed) not in shown
    assert "PRIVATE KEY" not in shown


def test_the_certificate_request_is_signed_by_the_tls_key() -> None:
    request = x509.load_pem_x509_csr(KEYS.certificate_request("Bus 12 front").encode())
    assert request.is_signature_valid


@pytest.mark.parametrize(
    "change",
    [
        {"fleet_public_key": OTHER.key.public_key.hex()},
        {"fleet_public_key": 7},
        {"certificate": FLEET.given(new_keys(os.urandom))["certificate"]},
        {"certificate": FLEET.given(KEYS, role=Role.HUB)["certificate"]},
        {"certificate": "zz"},
        {"certificate": ""},
        {"hub_certificate": OTHER.hub_certificate.encode().hex()},
        {"hub_certificate": FLEET.given(KEYS)["certificate"]},
        {"tls_certificate": FLEET.given(new_keys(os.urandom))["tls_certificate"]},
        {"tls_certificate": "nonsense"},
        {"tls_root": ""},
        {"tls_root": None},
    ],
)
def test_parts_that_do_not_belong_together_are_refused(change: dict[str, object]) -> None:
    """Invariant 8: what a hub gives at pairing is checked part by part before anything is kept."""
    with pytest.raises(IdentityError, match=r"^The identity is not usable: "):
        checked(KEYS, {**FLEET.given(KEYS), **change})


def test_a_damaged_record_asks_for_pairing() -> None:
    for raw in (b"", b"{}", b"[]", b'{"seed": 1}', b"\xff", b"null"):
        with pytest.raises(IdentityError, match="pair the terminal again"):
            load_identity(Memory(raw))


RECORD = json.loads(FLEET.enrol(KEYS).encode())


@given(st.sampled_from(sorted(RECORD)), st.one_of(st.none(), st.text(max_size=20), st.integers()))
def test_any_other_value_in_the_record_is_an_identity_error(name: str, value: object) -> None:
    with pytest.raises(IdentityError):
        load_identity(Memory(json.dumps({**RECORD, name: value}).encode()))
