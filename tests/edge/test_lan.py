"""Hearing a LAN on which anybody announces what he likes, with real multicast on loopback."""

import asyncio
import contextlib
from collections.abc import Collection, Mapping

from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from edge.lan import Lan

SERVICE_TYPE = "_farebox-lan._tcp.local."
LOOPBACK = "127.0.0.1"
RECORDS, AT_A_TIME = 11, 4


def loopback() -> AsyncZeroconf:
    return AsyncZeroconf(interfaces=[LOOPBACK])


def record(number: int) -> ServiceInfo:
    return ServiceInfo(
        SERVICE_TYPE,
        f"{number}.{SERVICE_TYPE}",
        parsed_addresses=[LOOPBACK],
        port=number + 1,
        server=f"{number}.local.",
    )


async def test_too_many_records_are_looked_at_in_turns() -> None:
    """Invariant 8: a bounded number at a time, and none is left out because others were there first."""
    missing = {f"{number}.{SERVICE_TYPE}" for number in range(RECORDS)}
    all_heard = asyncio.Event()

    def heard(infos: Mapping[str, AsyncServiceInfo], _names: Collection[str]) -> None:
        assert len(infos) <= AT_A_TIME
        missing.difference_update(infos)
        if not missing:
            all_heard.set()

    async with loopback() as network:
        register = network.async_register_service
        every = (register(record(number), cooperating_responders=True) for number in range(RECORDS))
        await asyncio.gather(*await asyncio.gather(*every))
        lan = Lan(SERVICE_TYPE, heard, network=loopback, poll_s=0.1, max_records=AT_A_TIME)
        task = asyncio.create_task(lan.run())
        try:
            async with asyncio.timeout(60):
                await all_heard.wait()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
