"""Which SQLCipher driver opens the ledger, and why another one is refused.

`sqlcipher3` bundles its own SQLCipher; `pysqlcipher3` is linked with the system's and is taken only where
that is new enough: SQLCipher 4 has the file format the fleet uses, SQLite 3.51.3 is the first release without
the bug that could corrupt a database when its write-ahead log is reset (https://sqlite.org/changes.html).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType

from crdt.errors import DriverUnusable

CANDIDATES = ("sqlcipher3", "pysqlcipher3.dbapi2")
MIN_CIPHER_MAJOR = 4
MIN_SQLITE = (3, 51, 3)


def choose_driver(
    candidates: Sequence[str] = CANDIDATES,
    load: Callable[[str], ModuleType] = importlib.import_module,
) -> ModuleType:
    """The first DB-API module that is new enough. Raises DriverUnusable, which says what each lacks."""
    reasons = []
    for name in candidates:
        try:
            module = load(name)
        except ImportError as err:
            reasons.append(f"{name}: cannot be imported ({err})")
            continue
        lack = _lack(module)
        if lack is None:
            return module
        reasons.append(f"{name}: {lack}")
    raise DriverUnusable(
        "No usable SQLCipher driver. "
        + "; ".join(reasons)
        + ". Install one with: pip install 'sqlcipher3>=0.6.4,<0.7'"
    )


def _lack(module: ModuleType) -> str | None:
    """What ``module`` lacks, as words that follow its name, or None where it will do."""
    sqlite: tuple[int, ...] = tuple(module.sqlite_version_info)
    if sqlite < MIN_SQLITE:
        return f"its SQLite {_dotted(sqlite)} is older than {_dotted(MIN_SQLITE)} and could lose data"
    connection = module.connect(":memory:")
    try:
        row = connection.execute("PRAGMA cipher_version").fetchone()
    finally:
        connection.close()
    if row is None:
        return "its SQLite does not encrypt"
    version = str(row[0])
    major = version.split(".", 1)[0]
    if not major.isdigit() or int(major) < MIN_CIPHER_MAJOR:
        return f"its SQLCipher {version} is older than {MIN_CIPHER_MAJOR} and writes another file format"
    return None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
