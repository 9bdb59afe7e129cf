"""What a check would do that looks first and acts afterwards: all who come at once find the same."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

RACERS = 5
WAIT_SECONDS = 20

Method = Callable[..., Awaitable[Any]]


def looking_first(look: Method, use: Method) -> Method:
    """In place of the one statement that both looks and uses: nobody uses before `RACERS` have looked."""
    together = asyncio.Barrier(RACERS)

    async def method(*arguments: Any) -> Any:
        found = await look(*arguments)
        async with asyncio.timeout(WAIT_SECONDS):
            await together.wait()
        await use(*arguments)
        return found

    return method
