"""The hub's own tables, beside the ledger's in the same encrypted database.

Who is paired, with which TLS certificates; open invites; operators and their sessions.
Times are milliseconds since the epoch by the hub's clock. Money is not here but in the ledger.
"""

from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.dialects.mysql import MEDIUMBLOB

from crdt.facts import ID_BYTES
from crdt.store.sql import short_bytes

metadata = MetaData()

terminal = Table(
    "hub_terminal",
    metadata,
    Column("terminal", short_bytes(ID_BYTES), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("replica", short_bytes(ID_BYTES), nullable=False),  # the one it was paired as last
    Column("paired_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),  # null: not revoked
    Column("recalled", Boolean, nullable=False, default=False),  # by a list that the hub had lost
    Column("seen_ms", BigInteger),  # null: never synced
    Column("address", String(64), nullable=False, default=""),
    Column("status", Text, nullable=False, default="{}"),  # what it last said of itself, JSON
    Column("restored_ms", BigInteger),  # null: its storage was never found older than what it had sealed
    Column("settled_fact", BigInteger, nullable=False, default=0),  # the last of the history it knew then
    Column("settled_ms", BigInteger),  # null: it has not said that it has installed one
    Column("renewed_ms", BigInteger),  # null: the identity it was paired with is its only one
)

client_certificate = Table(
    "hub_client_certificate",
    metadata,
    Column("serial", String(40), primary_key=True),  # hex
    Column("terminal", short_bytes(ID_BYTES), nullable=False, index=True),
    Column("replica", short_bytes(ID_BYTES), nullable=False),
    Column("paired_as", short_bytes(ID_BYTES), nullable=False),  # the replica of the pairing that it is from
    Column("number", BigInteger, nullable=False),  # of the terminal's certificates, by age
    Column("issued_ms", BigInteger, nullable=False),
    Column("used", Boolean, nullable=False, default=False),
    Column("doubted", Boolean, nullable=False, default=False),  # the hub was put back to before its first use
    Column("stopped", String(16), nullable=False, default=""),  # "", "revoked" or "replaced"
)

invite = Table(
    "hub_invite",
    metadata,
    Column("nameplate", String(8), primary_key=True),
    Column("code", String(32), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("tries_left", Integer, nullable=False),
)

operator = Table(
    "hub_operator",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("password_hash", String(256), nullable=False),  # argon2id, encoded
)

session = Table(
    "hub_session",
    metadata,
    Column("token_hash", short_bytes(32), primary_key=True),  # SHA-256: a copied database logs nobody in
    Column("begun_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
)

restored_hub = Table(
    "hub_restored",
    metadata,
    Column("former", short_bytes(ID_BYTES), primary_key=True),  # the replica that must not write any more
    Column("at_ms", BigInteger, nullable=False),
    Column("version_floor", BigInteger, nullable=False),  # documents go on from here
    Column("seen", Boolean, nullable=False),  # an operator took the notice away
)

known_list = Table(  # of revocations, of other identities of the hub
    "hub_known_list",
    metadata,
    Column("signer", short_bytes(ID_BYTES), primary_key=True),
    Column("version", BigInteger, nullable=False),  # up to this one the hub's own list was made with them
)

published_rules = Table(  # of every version of the settings; terminals that are away have earlier ones
    "hub_published_rules",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("fare_minor", BigInteger, nullable=False),  # these are `crdt.exposure.Rules`
    Column("lends", Boolean, nullable=False),
    Column("opening_minor", BigInteger, nullable=False),
    Column("window_ms", BigInteger, nullable=False),
)

reissued = Table(
    "hub_reissued",
    metadata,
    Column("hash", short_bytes(32), primary_key=True),  # of a block that its terminal has written again
    Column("terminal", short_bytes(ID_BYTES), nullable=False, index=True),
)

terminal_document = Table(  # of terminals of which anything was ever set
    "hub_terminal_document",
    metadata,
    Column("terminal", short_bytes(ID_BYTES), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("body", LargeBinary().with_variant(MEDIUMBLOB, "mysql", "mariadb"), nullable=False),
    Column(
        "fetched", BigInteger, nullable=False, default=0
    ),  # the version the terminal was last known to have
    Column("fetched_texts", Text, nullable=False, default="{}"),  # and its texts, JSON
)
