"""The certificate that binds an author's key to a fleet, a terminal, a role and limits.

It travels with blocks, so that a peer can judge them without asking the hub. The fleet's key signs it once,
at enrolment; the limits are the most that this author may do, with one delta and with all of them together.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final, Self

from crdt.errors import BadSignature, ForeignFleet, Malformed, MisuseError, NotPermitted, Unsupported
from crdt.facts import (
    CERTIFIED,
    HUBS_OWN,
    ID_BYTES,
    MAX_ALLOWANCE_MINOR,
    MAX_AMOUNT_MINOR,
    FleetId,
    Kind,
    ReplicaId,
    TerminalId,
    text_fits,
)
from crdt.signing import (
    CERTIFICATE_TAG,
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    SigningKey,
    fleet_id,
    replica_id,
    verify,
)
from crdt.wire import Reader, Writer

VERSION: Final = 1
MAX_CERTIFICATE_BYTES: Final = 256  # 1 + 16 + 16 + 1 + 32 + (1 + 64) + 1 + 6 + 6 + 9 + 64 = 217, rounded up


class Role(IntEnum):
    """What the author is in the fleet."""

    TERMINAL = 1
    HUB = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What the author may write: of each delta its kind and -max_debit <= amount <= max_credit.

    `allowance_minor`: the most that all its credits (every amount above zero, openings included) may ever
    add up to. A chain's deltas have one order, so everybody finds the same block to be the first beyond it.
    """

    kinds: frozenset[Kind]
    max_credit_minor: int
    max_debit_minor: int
    allowance_minor: int = MAX_ALLOWANCE_MINOR

    def __post_init__(self) -> None:
        """Raise MisuseError unless the limits are integers within their ranges, of kinds that have limits."""
        if not self.kinds <= CERTIFIED:
            raise MisuseError("what is the hub's alone is in no certificate")
        for amount in (self.max_credit_minor, self.max_debit_minor):
            if type(amount) is not int or not 0 <= amount <= MAX_AMOUNT_MINOR:
                raise MisuseError("a limit is an integer of minor units from 0 to 2**40")
        if type(self.allowance_minor) is not int or not 0 <= self.allowance_minor <= MAX_ALLOWANCE_MINOR:
            raise MisuseError("an allowance is an integer of minor units from 0 to 2**62")


@dataclass(frozen=True, slots=True)
class AuthorCertificate:
    """Who may write, as what, and how much. Trust it only after `verify`."""

    fleet: FleetId
    terminal: TerminalId  # which validator (or hub) this is, across re-pairings
    name: str  # for people: "bus 12, front door"; at most 64 bytes
    role: Role
    public_key: bytes
    limits: Limits
    signature: bytes = b""
    replica: ReplicaId = field(init=False)

    def __post_init__(self) -> None:
        """Raise MisuseError unless the fields have their sizes."""
        sizes = (len(self.fleet), len(self.terminal), len(self.public_key))
        if sizes != (ID_BYTES, ID_BYTES, PUBLIC_KEY_BYTES) or not text_fits(self.name):
            raise MisuseError("a certificate needs a fleet, a terminal, a key of 32 bytes and a short name")
        object.__setattr__(self, "replica", replica_id(self.public_key))

    def permits(self, kind: Kind, amount_minor: int) -> bool:
        """Whether the author may write one such delta. The same answer everywhere, for ever."""
        limits = self.limits
        may = self.role is Role.HUB if kind in HUBS_OWN else kind in limits.kinds
        return may and -limits.max_debit_minor <= amount_minor <= limits.max_credit_minor

    def check_allowance(self, credit_minor: int) -> None:
        """Raise NotPermitted when all credits of the author's chain together are more than it may give."""
        if credit_minor > self.limits.allowance_minor:
            raise NotPermitted(
                f"{self.name or 'the author'} may give {self.limits.allowance_minor} minor units of credit "
                f"in all, and this would make it {credit_minor}"
            )

    def verify(self, fleet_public_key: bytes) -> Self:
        """This certificate, when the fleet's key signed it. Raises ForeignFleet or BadSignature."""
        if self.fleet != fleet_id(fleet_public_key):
            raise ForeignFleet("the certificate belongs to another fleet")
        if not verify(fleet_public_key, self.signature, CERTIFICATE_TAG + self._body()):
            raise BadSignature("the certificate is not signed by the fleet's key")
        return self

    def encode(self) -> bytes:
        """The certificate's bytes, at most MAX_CERTIFICATE_BYTES."""
        return self._body() + self.signature

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The certificate in `data`, not yet verified. Raises Malformed or Unsupported."""
        if len(data) > MAX_CERTIFICATE_BYTES:
            raise Malformed("a certificate has at most 256 bytes")
        reader = Reader(data)
        if reader.uint(1) != VERSION:
            raise Unsupported("the certificate has a version this program does not know")
        certificate = cls(
            fleet=FleetId(reader.raw(ID_BYTES)),
            terminal=TerminalId(reader.raw(ID_BYTES)),
            role=Role(reader.uint(1, Role.TERMINAL, Role.HUB)),
            public_key=reader.raw(PUBLIC_KEY_BYTES),
            name=reader.text(),
            limits=_read_limits(reader),
            signature=reader.raw(SIGNATURE_BYTES),
        )
        reader.end()
        return certificate

    def _body(self) -> bytes:
        writer = Writer().uint(VERSION, 1).raw(self.fleet).raw(self.terminal).uint(self.role, 1)
        writer.raw(self.public_key).text(self.name)
        writer.uint(_kind_mask(self.limits.kinds), 1)
        writer.varint(self.limits.max_credit_minor).varint(self.limits.max_debit_minor)
        return writer.varint(self.limits.allowance_minor).done()


def issue(
    fleet_key: SigningKey, terminal: TerminalId, name: str, role: Role, public_key: bytes, limits: Limits
) -> AuthorCertificate:
    """A certificate for the author with `public_key`, signed by the fleet's key."""
    unsigned = AuthorCertificate(fleet_id(fleet_key.public_key), terminal, name, role, public_key, limits)
    return replace(unsigned, signature=fleet_key.sign(CERTIFICATE_TAG + unsigned._body()))


def _kind_mask(kinds: Iterable[Kind]) -> int:
    return sum(1 << (kind - 1) for kind in frozenset(kinds))


def _read_limits(reader: Reader) -> Limits:
    mask = reader.uint(1, 0, _kind_mask(CERTIFIED))
    kinds = frozenset(kind for kind in CERTIFIED if mask >> (kind - 1) & 1)
    credit, debit = reader.varint(0, MAX_AMOUNT_MINOR), reader.varint(0, MAX_AMOUNT_MINOR)
    return Limits(kinds, credit, debit, reader.varint(0, MAX_ALLOWANCE_MINOR))
