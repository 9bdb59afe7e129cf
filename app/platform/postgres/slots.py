"""The queue in front of a pool: so many at once, the others in order, for a bounded time, and sent away all at once."""

import asyncio
from collections import deque


class Slots:
    """SQLAlchemy's own queue wakes a waiter when a connection comes back, but not when one could not be opened."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, seconds: float) -> None:
        """Raises `TimeoutError` after `seconds`, or what `refuse` was given."""
        if self.taken < self.limit:
            self.taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back()  # it was given in the very moment of leaving
            raise

    def give_back(self) -> None:
        """To the one who waits longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.taken -= 1

    def refuse(self, error: Exception) -> None:
        """Ends every wait."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(error)
        self._waiting.clear()
