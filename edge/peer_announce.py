"""Peers on the LAN: this terminal's record, and what others' records say. Hints, and nothing more."""

from collections.abc import Iterable
from dataclasses import dataclass

from zeroconf import IPVersion, ServiceInfo

from crdt.facts import ID_BYTES, ReplicaId, text_fits
from crdt.protocol import (
    PEER_SERVICE_TYPE,
    PROTOCOL_VERSION,
    TXT_FLEET,
    TXT_REPLICA,
    TXT_VEHICLE,
    TXT_VERSION,
)
from edge.addresses import HubAddress
from edge.identity import Identity
from edge.lan import Interfaces

DOOR_ADDRESSES = 4
"""Most that are told and taken in one record, IPv4 alone: a terminal has hardly more, and each that is made
up costs it a turn."""
LOOPBACK = "127."


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Where a replica of this fleet may answer, and on which vehicle it says to be ("" for none)."""

    replica: ReplicaId
    vehicle: str
    addresses: tuple[HubAddress, ...]


def own_record(identity: Identity, vehicle: str, port: int, interfaces: Interfaces) -> ServiceInfo | None:
    """What to announce on a machine with these interfaces; None where there is nobody to hear it.

    Loopback is announced where there is nothing else: terminals on one machine are peers too.
    """
    addresses = [address for address in interfaces if not address.startswith(LOOPBACK)]
    addresses = sorted(addresses or interfaces)[:DOOR_ADDRESSES]
    if not addresses:
        return None
    replica = identity.replica.hex()
    properties = {
        TXT_FLEET: identity.fleet.hex(),
        TXT_REPLICA: replica,
        TXT_VEHICLE: vehicle,
        TXT_VERSION: str(PROTOCOL_VERSION),
    }
    return ServiceInfo(
        PEER_SERVICE_TYPE,
        f"{replica}.{PEER_SERVICE_TYPE}",
        port=port,
        properties=properties,
        server=f"farebox-{replica}.local.",
        parsed_addresses=addresses,
    )


def peers_in(infos: Iterable[ServiceInfo], identity: Identity) -> list[PeerRecord]:
    """What says to be another terminal of the fleet; more than one record may say to be the same."""
    records = (_record(info, identity) for info in infos)
    return [record for record in records if record is not None and record.replica != identity.replica]


def _record(info: ServiceInfo, identity: Identity) -> PeerRecord | None:
    texts = info.decoded_properties
    if texts.get(TXT_VERSION) != str(PROTOCOL_VERSION) or texts.get(TXT_FLEET) != identity.fleet.hex():
        return None
    try:
        replica = bytes.fromhex(texts.get(TXT_REPLICA) or "")
    except ValueError:
        return None
    vehicle = texts.get(TXT_VEHICLE) or ""
    hosts = info.parsed_scoped_addresses(IPVersion.V4Only)[:DOOR_ADDRESSES]
    if len(replica) != ID_BYTES or not info.port or not hosts or not text_fits(vehicle):
        return None
    return PeerRecord(ReplicaId(replica), vehicle, tuple(HubAddress(host, info.port) for host in hosts))
