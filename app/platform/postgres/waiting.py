"""Reads that wait for a replica to reach a WAL position."""

import asyncio

from app.platform.postgres.positions import covers

MAX_WAITERS = 1_000


class PositionWaiters:
    def __init__(self) -> None:
        self._waiters: set[tuple[int, asyncio.Future[None]]] = set()

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, required: int, seconds: float) -> bool:
        """True once a position that covers `required` was announced; False after `seconds`, or if too many wait."""
        if len(self._waiters) >= MAX_WAITERS:
            return False
        waiter = (required, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter[1]
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True

    def announce(self, position: int) -> None:
        for required, reached in self._waiters:
            if covers(position, required) and not reached.done():
                reached.set_result(None)
