"""What is measured beside the requests, for as long as the process lives."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.platform.telemetry.event_loop import watch_event_loop
from app.platform.telemetry.process import watch_process


@asynccontextmanager
async def watching(*, enabled: bool) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(watch) for watch in (watch_event_loop(), watch_process())] if enabled else []
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
