"""Where the demo's processes live."""

import socket
from contextlib import ExitStack
from random import Random

import pytest

from hub.demo.errors import DemoError
from hub.demo.home import LOOPBACK, PORT_TRIES, free_port

GIVEN_FROM = 32_768  # by Linux, unless it is told otherwise


def test_a_port_is_one_that_nobody_has_and_that_is_given_to_nobody_else() -> None:
    """Somebody who asked for any would have it before the hub does, and the demo would not start."""
    with ExitStack() as listening:
        found = set[int]()
        with pytest.raises(DemoError, match="Stop some of them"):
            while True:
                port = free_port(Random(1))  # noqa: S311 - no secret
                found.add(port)
                listening.enter_context(socket.create_server((LOOPBACK, port)))
    assert 0 < len(found) <= PORT_TRIES
    assert max(found) < GIVEN_FROM
