"""By which rules terminals may judge: those of every version of the fleet's settings that was published.

A terminal that is away goes on by the version it has, whatever was decided since. A version that a hub lost
when it was put back is not here; the one before it counts in its place.
"""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final

from sqlalchemy import Connection, select

from crdt.exposure import Rules
from crdt.fleet import FleetSettings
from crdt.store.sql import replacing
from hub import tables

_TABLE: Final = tables.published_rules
_PUT: Final = replacing(_TABLE)


class Published:
    """The rules by version. Pure."""

    def __init__(self, versions: Mapping[int, Rules]) -> None:
        """`versions`: at least one."""
        self._versions = sorted(versions)
        backwards = [versions[version] for version in reversed(self._versions)]
        self.newest = backwards[0]
        self._since = list(accumulate(backwards, Rules.joined))[::-1]  # of each version and all after it

    def since(self, version: int) -> Rules:
        """The most generous of those by which a terminal may judge that had this version; it may have been
        given a later one since, and not have said so."""
        return self._since[max(0, bisect_right(self._versions, version) - 1)]


def note(connection: Connection, version: int, settings: FleetSettings) -> None:
    """Remember the rules of a version, within the write that publishes it."""
    _PUT.run(connection, [(version, *Rules.of(settings))])


def published(connection: Connection) -> Published:
    """All of them; a hub that runs has noted at least those that it began with."""
    rows = connection.execute(select(_TABLE))
    return Published({version: Rules(*rules) for version, *rules in rows})


def version_in(status: Mapping[str, Any]) -> int:
    """Which version a terminal has by what it says of itself; 0 where it says nothing of the kind."""
    said = status.get("fares_version")
    return said if isinstance(said, int) and not isinstance(said, bool) else 0
