"""Who may write, as a ledger knows it: the stored certificates, and those on their way into the store."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection, func, select

from crdt.certificate import AuthorCertificate, Role
from crdt.errors import InputRefused, NotPermitted
from crdt.facts import ReplicaId
from crdt.ledger import RefusedInput
from crdt.store.blocks import authors_of, enrol
from crdt.store.schema import AUTHOR
from crdt.store.statement import Statement

_COUNT: Final = Statement(select(func.count()).select_from(AUTHOR))


class Authors:
    """The certificates of a fleet by author, in memory. A key is certified once."""

    def __init__(self, fleet_public_key: bytes, stored: Iterable[AuthorCertificate]) -> None:
        self.seen = {certificate.replica: certificate for certificate in stored}  # good for verifying
        self._fleet_public_key = fleet_public_key
        self._stored: Mapping[ReplicaId, AuthorCertificate] = MappingProxyType(dict(self.seen))
        self.hubs = _hubs(self.seen)  # all identities of the fleet's hub that are stored
        self._mutex = threading.Lock()

    def stored(self) -> Mapping[ReplicaId, AuthorCertificate]:
        """The certificates that are in the store, as of now: what changes later is another mapping.

        Asked several times in an exchange, so it must not cost more in a large fleet.
        """
        return self._stored

    def learn(self, connection: Connection, replicas: Iterable[ReplicaId]) -> None:
        """Within a read: look up those of these authors that another process may have stored."""
        absent = [replica for replica in {*replicas} if replica not in self._stored]
        if absent:
            self._learn(authors_of(connection, absent))

    def learn_new(self, connection: Connection) -> None:
        """Within a read: take note of all authors that other processes stored."""
        if _COUNT.value(connection) != len(self._stored):
            self._learn(authors_of(connection))

    def every(self, connection: Connection) -> Mapping[ReplicaId, AuthorCertificate]:
        """Within a write: all authors of this instant. Nothing is noted: it may not come to a commit."""
        stored = self._stored
        return stored if _COUNT.value(connection) == len(stored) else authors_of(connection)

    def check(self, certificate: AuthorCertificate) -> None:
        """Take note of a certificate. Raises ForeignFleet, BadSignature, or NotPermitted for a second one."""
        if self.seen.get(certificate.replica) == certificate:
            return
        certificate.verify(self._fleet_public_key)
        with self._mutex:
            if self.seen.setdefault(certificate.replica, certificate) != certificate:
                raise second_certificate()

    def checked(
        self, certificates: Iterable[AuthorCertificate], refused: list[RefusedInput]
    ) -> list[AuthorCertificate]:
        """Those that `check` accepts, each once; the others go to `refused`."""
        good = {}
        for certificate in certificates:
            try:
                self.check(certificate)
                good[certificate.replica] = certificate
            except InputRefused as error:  # noqa: PERF203 - one bad certificate must not stop the others
                refused.append(RefusedInput(certificate.encode(), error))
        return list(good.values())

    def store(
        self, connection: Connection, certificates: Iterable[AuthorCertificate], refused: list[RefusedInput]
    ) -> tuple[list[AuthorCertificate], set[ReplicaId]]:
        """Store checked certificates in this transaction: those that are there then, and who may not write.

        What is certain to be there already costs nothing and is not returned.
        """
        absent = [certificate for certificate in certificates if certificate.replica not in self._stored]
        if not absent:
            return [], set()
        good, others = enrol(connection, absent)
        refused += [RefusedInput(certificate.encode(), second_certificate()) for certificate in others]
        return good, {certificate.replica for certificate in others}

    def remember(self, certificates: Iterable[AuthorCertificate]) -> None:
        """These are stored for certain now."""
        self._learn({certificate.replica: certificate for certificate in certificates})

    def _learn(self, found: Mapping[ReplicaId, AuthorCertificate]) -> None:
        if not found:
            return
        with self._mutex:
            self.seen.update(found)
            self._stored = MappingProxyType({**self._stored, **found})
            self.hubs |= _hubs(found)


def _hubs(authors: Mapping[ReplicaId, AuthorCertificate]) -> frozenset[ReplicaId]:
    return frozenset(replica for replica, author in authors.items() if author.role is Role.HUB)


def second_certificate() -> NotPermitted:
    """Why a second certificate of one key is refused."""
    return NotPermitted("a key is certified once, and this one already is, otherwise")
