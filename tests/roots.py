"""The machine's root certificates: nothing here trusts any, and whatever imports aiohttp reads them all."""

import os
from typing import Final

_NAME: Final = "SSL_CERT_FILE"
_KEPT: Final = "FAREBOX_TESTS_SSL_CERT_FILE"  # what it was; processes of one run start each other


def spare_roots() -> None:
    """Let this process and those it starts find none: reading them is 7 % of a hub's start."""
    os.environ.setdefault(_KEPT, os.environ.get(_NAME, ""))
    os.environ[_NAME] = os.devnull


def machines_roots() -> dict[str, str]:
    """What to add to the environment of a program that does trust them."""
    kept = os.environ.get(_KEPT, "")
    return {_NAME: kept} if kept else {}
