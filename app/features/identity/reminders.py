"""Who logs in with an address that was never verified is refused as by a wrong password, and sent the mail again.

That is noted, and ordered a little later: the refusal takes no longer by it, and tells nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from sqlalchemy.exc import DBAPIError

from app.platform.postgres.errors import DatabaseError

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
MOST_NOTED = 1_000

Order = Callable[[Collection[str]], Awaitable[None]]


class Reminders:
    """What is noted and not ordered yet is lost with the process: whoever it was for tries again."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._noted: set[str] = set()

    def note(self, email: str) -> None:
        if len(self._noted) < MOST_NOTED:
            self._noted.add(email)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            await self.order_noted()

    async def order_noted(self) -> None:
        noted, self._noted = self._noted, set()
        if not noted:
            return
        try:
            await self._order(noted)
        except (DatabaseError, DBAPIError, OSError):
            logger.warning("%d reminders could not be ordered", len(noted))
