"""What is measured beside the requests, for as long as the process lives."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.platform.resilience.background import in_background
from app.platform.telemetry.event_loop import watch_event_loop
from app.platform.telemetry.process import watch_process


@asynccontextmanager
async def watching(*, enabled: bool) -> AsyncIterator[None]:
    if not enabled:
        yield
        return
    async with in_background(watch_event_loop(), watch_process()):
        yield
