"""Where the hub's ledger lies, in words."""

from crdt.store.server_url import Server
from hub.settings import HubSettings


def ledger_place(settings: HubSettings) -> str:
    """Its file, or its database and on which server, without a password. Raises as `Server.parse` does."""
    return Server.parse(settings.store_url).place if settings.store_url else str(settings.database)
