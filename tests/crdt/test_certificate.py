"""Certificates: only the fleet makes them, and their limits are the same everywhere (invariants 8 and 10)."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.certificate import (
    MAX_CERTIFICATE_BYTES,
    AuthorCertificate,
    Limits,
    Role,
    issue,
)
from crdt.errors import (
    BadSignature,
    ForeignFleet,
    InputRefused,
    Malformed,
    MisuseError,
    NotPermitted,
    Unsupported,
)
from crdt.facts import CERTIFIED, HUBS_OWN, MAX_ALLOWANCE_MINOR, MAX_AMOUNT_MINOR, Kind, TerminalId, text_fits
from crdt.signing import replica_id
from tests.crdt.world import FLEET_KEY, HUB, OTHER_FLEET_KEY, TERMINALS, texts

CERTIFICATE = TERMINALS[0].certificate
PUBLIC = FLEET_KEY.public_key


@given(
    name=texts,
    role=st.sampled_from(Role),
    key=st.binary(min_size=32, max_size=32),
    kinds=st.frozensets(st.sampled_from(sorted(CERTIFIED))),
    credit=st.integers(0, MAX_AMOUNT_MINOR),
    debit=st.integers(0, MAX_AMOUNT_MINOR),
    allowance=st.integers(0, MAX_ALLOWANCE_MINOR),
)
def test_a_certificate_reads_as_issued(
    name: str, role: Role, key: bytes, kinds: frozenset[Kind], credit: int, debit: int, allowance: int
) -> None:
    limits = Limits(kinds, credit, debit, allowance)
    made = issue(FLEET_KEY, TerminalId(bytes(16)), name, role, key, limits)
    data = made.encode()
    assert AuthorCertificate.decode(data).verify(PUBLIC) == made
    assert made.replica == replica_id(key)
    assert len(data) <= MAX_CERTIFICATE_BYTES
    assert made.permits(Kind.TOPUP, credit) is (Kind.TOPUP in kinds)
    assert not made.permits(Kind.TOPUP, credit + 1)
    assert not made.permits(Kind.FARE, -debit - 1)
    assert made.permits(Kind.DUPLICATE, credit) is made.permits(Kind.REINSTATED, -debit) is (role is Role.HUB)
    assert not made.permits(Kind.DUPLICATE, credit + 1)
    made.check_allowance(allowance)
    with pytest.raises(NotPermitted):
        made.check_allowance(allowance + 1)


@pytest.mark.parametrize("kind", sorted(HUBS_OWN))
def test_what_only_a_hub_may_write_is_in_no_certificate(kind: Kind) -> None:
    """So a hub of before these kinds has a good one, and nobody is given them by mistake."""
    with pytest.raises(MisuseError):
        Limits(CERTIFIED | {kind}, 1, 1)


def test_every_truncation_and_flipped_bit_is_refused() -> None:
    data = CERTIFICATE.encode()
    changed = [data[:end] for end in range(len(data))] + [data + b"\0"]
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        changed.append(bytes(flipped))
    for each in changed:
        with pytest.raises(InputRefused):
            AuthorCertificate.decode(each).verify(PUBLIC)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InputRefused):
        AuthorCertificate.decode(b"\x01" + data).verify(PUBLIC)


def test_another_fleet_another_version_and_too_many_bytes_are_refused() -> None:
    with pytest.raises(ForeignFleet):
        CERTIFICATE.verify(OTHER_FLEET_KEY.public_key)
    with pytest.raises(BadSignature):
        replace(CERTIFICATE, role=Role.HUB).verify(PUBLIC)
    with pytest.raises(Unsupported):
        AuthorCertificate.decode(b"\x02" + CERTIFICATE.encode()[1:])
    with pytest.raises(Malformed):
        AuthorCertificate.decode(bytes(MAX_CERTIFICATE_BYTES + 1))


@pytest.mark.parametrize(
    "change",
    [{"fleet": b"x"}, {"terminal": b"x"}, {"public_key": b"x"}, {"name": "a\nb"}, {"name": "x" * 65}],
)
def test_a_certificate_with_parts_that_do_not_fit_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        replace(CERTIFICATE, **change)


@pytest.mark.parametrize("limit", [-1, MAX_AMOUNT_MINOR + 1, 1.5, True])
def test_limits_are_integers_in_range(limit: Any) -> None:
    with pytest.raises(MisuseError):
        Limits(frozenset(), limit, 0)
    with pytest.raises(MisuseError):
        Limits(frozenset(), 0, limit)


@pytest.mark.parametrize("allowance", [-1, MAX_ALLOWANCE_MINOR + 1, 1.5, True])
def test_an_allowance_is_an_integer_in_range(allowance: Any) -> None:
    with pytest.raises(MisuseError):
        Limits(frozenset(), 0, 0, allowance)


def test_the_largest_certificate_fits() -> None:
    assert text_fits("x" * 64)
    most = Limits(CERTIFIED, MAX_AMOUNT_MINOR, MAX_AMOUNT_MINOR, MAX_ALLOWANCE_MINOR)
    assert len(replace(CERTIFICATE, name="x" * 64, limits=most).encode()) <= MAX_CERTIFICATE_BYTES
    assert HUB.role is Role.HUB
