"""What a test needs from the machine beyond Python packages.

A missing component skips the test and says why. With the environment variable CI set it fails the test
instead, so that a green run in CI has left nothing out.
"""

import importlib
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

_PACKAGES = Path(__file__).with_name("debian-packages")
# Where Debian puts programs that are not on everybody's PATH; tests/run looks there too.
_OFF_PATH = ("usr/sbin", "usr/lib/postgresql/*/bin")


def needs_program(name: str, why: str) -> Path:
    """The path of the program `name`; without it the test is skipped, or fails in CI.

    `why` finishes the sentence "... is not installed: needed to". Works in tests, fixtures and at the top
    of a test module.
    """
    beside = sorted(str(path) for pattern in _OFF_PATH for path in Path("/").glob(pattern))
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(beside))
    if found is None:
        package = debian_packages().get(name)
        hint = f" (apt-get install {package})" if package else ""
        missing(f"{name} is not installed: needed to {why}{hint}")
    return Path(found)


def needs_module(name: str, why: str) -> ModuleType:
    """The importable module `name`; without it the test is skipped, or fails in CI."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing(f"the Python module {name} cannot be imported ({error}): needed to {why}")


def missing(reason: str) -> NoReturn:
    """Give up the test because of the machine it runs on, not because of the code it tests."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}. CI is set, so this is not skipped.", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def debian_packages() -> dict[str, str]:
    """Program name to the Debian package that brings it, from the table that tests/run installs from."""
    rows = (line.split() for line in _PACKAGES.read_text(encoding="utf-8").splitlines())
    return {row[0]: row[1] for row in rows if row and not row[0].startswith("#")}
