"""The operators' page while what it shows breaks."""

import os
import signal
from collections.abc import Iterator

import pytest
from playwright.async_api import Page, expect

from tests.support.browser import browser_page
from tests.support.native import NativeStack, native_stack, signed_in

SEE_MS = 30_000


@pytest.fixture(scope="module")
def breakable() -> Iterator[NativeStack]:
    with native_stack(RATE_LIMIT_SCALE="1000", WEB_CONCURRENCY="1", POSTGRES_REPLICAS="1") as started:
        yield started


async def becomes(page: Page, node: str, state: str) -> None:
    await expect(page.locator(f'[data-node="{node}"]')).to_have_attribute("data-state", state, timeout=SEE_MS)


async def test_it_survives_an_instance(breakable: NativeStack) -> None:
    """Frozen, then killed: it says so, goes on counting the other, and takes it back."""
    errors: list[str] = []
    async with browser_page(errors) as page, signed_in(breakable) as client:
        await page.goto(breakable.ops)
        await becomes(page, "api-2", "up")
        victim = breakable.pid("api-2")
        os.killpg(victim, signal.SIGSTOP)
        await becomes(page, "api-2", "down")
        await expect(page.locator("#summary")).to_contain_text("api-2 is down")
        await becomes(page, "api-1", "up")
        os.killpg(victim, signal.SIGKILL)
        await becomes(page, "api-2", "up")
        for _ in range(10):
            await client.get("/equipment?limit=1")
        await expect(page.locator('[data-figure="errors"]')).to_have_text("0.0%", timeout=SEE_MS)
        await expect(page.locator("#summary")).to_have_text("All parts are up", timeout=SEE_MS)
        assert float(await page.get_attribute('[data-figure="rate"]', "data-value") or "nan") >= 0
    # The browser itself tells of the requests that had no answer; the page throws nothing.
    assert [error for error in errors if "Failed to load resource" not in error] == []


async def test_it_says_that_redis_is_gone(breakable: NativeStack) -> None:
    async with browser_page([]) as page:
        await page.goto(breakable.ops)
        await becomes(page, "redis", "up")
        redis = breakable.pid("redis")
        os.kill(redis, signal.SIGSTOP)
        try:
            await expect(page.locator('[data-node="redis"]')).to_have_attribute("data-well", "false", timeout=SEE_MS)
        finally:
            os.kill(redis, signal.SIGCONT)
        await becomes(page, "redis", "up")
