"""Names and numbers that terminals, hubs and couriers must agree on. The bytes: frames.py and README.md."""

from typing import Final

PROTOCOL_VERSION: Final = 1  # in HELLO, and in the TXT record below

# Discovery (DNS-SD, RFC 6763). A record is a hint of an address and never trusted.
SERVICE_TYPE: Final = "_farebox._tcp.local."  # of hubs
PEER_SERVICE_TYPE: Final = "_farebox-peer._tcp.local."  # of paired terminals, for each other
TXT_FLEET: Final = "fleet"  # the fleet id, 32 hex digits
TXT_VERSION: Final = "v"  # PROTOCOL_VERSION in decimal
TXT_REPLICA: Final = "replica"  # of a peer: its replica id, 32 hex digits
TXT_VEHICLE: Final = "vehicle"  # of a peer: which vehicle it is on, a text; empty where nobody said
DEFAULT_PORT: Final = 8443

# A settlement page, at most.
MAX_PAGE_ROWS: Final = 4096  # cards
MAX_PAGE_HEADS: Final = 4096
MAX_PAGE_BYTES: Final = 393_216  # MAX_PAGE_ROWS and MAX_PAGE_HEADS at their largest

# HTTPS. All want the terminal's client certificate, but for PAIR_*, which come before there is one.
SYNC: Final = "/api/v1/sync"  # POST, CONTENT_TYPE both ways: one session each way
PAIR_START: Final = "/api/v1/pair/start"  # POST JSON {nameplate, message} -> {session, message}
PAIR_FINISH: Final = "/api/v1/pair/finish"  # POST JSON {session, request} -> {response}
# POST JSON {public_key, csr, reissued, and where there is one forgotten} -> as a pairing's answer, unsealed
RENEW: Final = "/api/v1/renew"
IDENTIFY: Final = "/api/v1/identify"  # GET -> JSON about the hub
# GET -> CONTENT_TYPE, a session of HELLO and the signed list; also for a terminal that was revoked
REVOKED_LIST: Final = "/api/v1/revoked"
CONTENT_TYPE: Final = "application/vnd.farebox.sync"
VEHICLE_HEADER: Final = "Farebox-Vehicle"  # of a peer's answer to SYNC: its vehicle, percent-encoded UTF-8
MAX_JSON_BYTES: Final = 64 * 1024  # a pairing request or answer
