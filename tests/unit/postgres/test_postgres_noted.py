import asyncio
import logging
from collections.abc import Collection

import pytest

from app.platform.postgres.errors import DatabaseUnavailable
from app.platform.postgres.noted import Noted


class Written:
    """Fails as often as it is told to, then keeps what it is given."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.items: list[list[str]] = []
        self.done = asyncio.Event()

    async def __call__(self, items: Collection[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailable("away")
        self.items.append(sorted(items))
        self.done.set()


async def once(noted: Noted[str], written: Written) -> None:
    running = asyncio.create_task(noted.run())
    async with asyncio.timeout(5):
        await written.done.wait()
    running.cancel()
    await asyncio.wait([running])


async def test_what_is_noted_is_written_at_once_and_each_once() -> None:
    written = Written()
    noted = Noted(written, "names", seconds=0.01, most=10)
    for name in ("a", "b", "a"):
        noted.note(name)
    await once(noted, written)
    assert written.items == [["a", "b"]]


async def test_beyond_the_most_nothing_is_kept() -> None:
    written = Written()
    noted = Noted(written, "names", seconds=0.01, most=2)
    for name in ("a", "b", "c"):
        noted.note(name)
    await once(noted, written)
    assert written.items == [["a", "b"]]


async def test_without_a_database_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    written = Written(failures=1)
    noted = Noted(written, "names", seconds=0.01, most=10)
    noted.note("lost")
    with caplog.at_level(logging.WARNING):
        running = asyncio.create_task(noted.run())
        async with asyncio.timeout(5):
            while written.failures:  # noqa: ASYNC110  (nothing tells that it failed)
                await asyncio.sleep(0.001)
            noted.note("later")
            await written.done.wait()
        running.cancel()
        await asyncio.wait([running])
    assert written.items == [["later"]]
    assert "1 names could not be written down" in caplog.text
