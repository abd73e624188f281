"""An event loop without time, threads or sockets: what never has to wait runs straight through."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")


class InlineLoop:
    """As much of an event loop as `asyncio.to_thread` and our own code ask for. One thread only."""

    def get_debug(self) -> bool:
        """For asyncio.Future."""
        return False

    def create_future(self) -> asyncio.Future[Any]:
        """For run_in_executor."""
        return asyncio.Future(loop=cast(asyncio.AbstractEventLoop, self))

    def run_in_executor(self, _executor: object, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Call it now; asyncio.to_thread comes here."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def create_task(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run it now, to its end; asyncio.create_task comes here."""
        return self.run_in_executor(None, self.run, coroutine)

    def is_closed(self) -> bool:
        """For asyncio.wrap_future."""
        return False

    def call_soon(self, callback: Callable[..., object], *args: Any, **_context: Any) -> None:
        """Call it now; a future that is done comes here."""
        callback(*args)

    call_soon_threadsafe = call_soon

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that waits for nothing but what is done already."""
        outer = asyncio._get_running_loop()  # a run may have another in it: a hub answers a terminal's
        asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, self))
        try:
            coroutine.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            asyncio._set_running_loop(outer)
            coroutine.close()
        raise AssertionError("the coroutine waits for something that nobody does")
