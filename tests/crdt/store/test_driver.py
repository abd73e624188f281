"""Only a driver that is new enough may open a ledger (issue 2: "with the version checks")."""

from types import ModuleType

import pytest

from crdt.errors import DriverUnusable
from crdt.store.driver import CANDIDATES, choose_driver


class _Driver:
    """What a driver linked with certain versions says of itself."""

    def __init__(self, sqlite: tuple[int, ...], cipher: str | None) -> None:
        self.sqlite_version_info = sqlite
        self._cipher = cipher

    def connect(self, _path: str) -> "_Driver":
        return self

    def execute(self, _sql: str) -> "_Driver":
        return self

    def fetchone(self) -> tuple[str] | None:
        return None if self._cipher is None else (self._cipher,)

    def close(self) -> None:
        return


def _loader(**drivers: object) -> object:
    def load(name: str) -> object:
        if name not in drivers:
            raise ImportError(f"No module named {name!r}")
        return drivers[name]

    return load


def _choose(names: list[str], **drivers: object) -> ModuleType:
    return choose_driver(names, _loader(**drivers))  # type: ignore[arg-type]  # stands for modules


def test_the_installed_driver_is_new_enough() -> None:
    assert choose_driver().__name__ in CANDIDATES


def test_the_first_candidate_that_is_new_enough_is_taken() -> None:
    good = _Driver((3, 53, 4), "4.19.0 community")
    debian = _Driver((3, 15, 2), "3.4.1")
    chosen: object = _choose(["absent", "debian", "good"], debian=debian, good=good)
    assert chosen is good


@pytest.mark.parametrize(
    ("driver", "lack"),
    [
        (_Driver((3, 51, 1), "4.12.0 community"), "SQLite 3.51.1 is older than 3.51.3"),
        (_Driver((3, 51, 3), None), "does not encrypt"),
        (_Driver((3, 51, 3), "3.4.1"), "SQLCipher 3.4.1 is older than 4"),
        (_Driver((3, 51, 3), "unknown"), "SQLCipher unknown is older than 4"),
    ],
)
def test_a_driver_that_is_too_old_is_refused_with_the_reason(driver: _Driver, lack: str) -> None:
    with pytest.raises(DriverUnusable, match=lack):
        _choose(["old"], old=driver)


def test_without_any_driver_the_sentence_says_what_to_install() -> None:
    with pytest.raises(DriverUnusable, match="cannot be imported.*pip install"):
        _choose(["nothing"])
