"""A history that is far behind its record, as when all of it came at once."""

from sqlalchemy import Connection

from crdt.store.hub_schema import HISTORY, HUB, QUARTER


def forget_history(connection: Connection) -> None:
    """As if none of what is here had been projected yet."""
    for table in (HISTORY, QUARTER):
        connection.execute(table.delete())
    connection.execute(HUB.update().values(projected=0))
