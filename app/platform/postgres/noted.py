"""What may be lost: requests note it, and it is written a little later, for many of them at once. None takes longer by
it, whether or not there is a primary.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Hashable
from typing import Generic, TypeVar

from sqlalchemy.exc import DBAPIError

from app.platform.postgres.errors import DatabaseError

logger = logging.getLogger(__name__)

Item = TypeVar("Item", bound=Hashable)


class Noted(Generic[Item]):
    """Written every `seconds`, each item once. Lost: what comes while `most` are noted, what can't be written, and what
    wasn't when the process ends.
    """

    def __init__(
        self, write: Callable[[Collection[Item]], Awaitable[None]], what: str, *, seconds: float, most: int
    ) -> None:
        self._write = write
        self._what = what
        self._seconds = seconds
        self._most = most
        self._items: set[Item] = set()

    def note(self, item: Item) -> None:
        if len(self._items) < self._most:
            self._items.add(item)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            await self.write_noted()

    async def write_noted(self) -> None:
        """Now, and raises nothing of the database's."""
        items, self._items = self._items, set()
        if not items:
            return
        try:
            await self._write(items)
        except (DatabaseError, DBAPIError, OSError):
            logger.warning("%d %s could not be written down", len(items), self._what)
