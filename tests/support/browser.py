"""A page in a real browser: Debian's Chromium, or what else of its family is installed."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Page, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE = {"width": 390, "height": 844}
# Headless, alone, and silent on the network.
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@asynccontextmanager
async def browser_page(errors: list[str]) -> AsyncIterator[Page]:
    """`errors` gets what the page throws, and what the browser refuses it."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, f"none of {', '.join(NAMES)} is installed: `make install TESTS=1` does"
    with tempfile.TemporaryDirectory(prefix="headroom-browser-", ignore_cleanup_errors=True) as profile:
        async with async_playwright() as playwright:
            context = await playwright.chromium.launch_persistent_context(
                profile, executable_path=program, args=ARGUMENTS
            )
            page = await context.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
            try:
                yield page
            finally:
                await context.close()
