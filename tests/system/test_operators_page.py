"""The picture on the operators' port, in a real browser: what it shows is what the instances say."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.support.browser import PHONE, browser_page
from tests.support.exposition import Exposition
from tests.support.native import NativeStack, signed_in

INSTANCES = ("api-1", "api-2")
DURATION = "http_request_duration_seconds"
LOOK_SECONDS = 20  # it looks every 2 s, and this machine has more to do
PATHS = (
    "/equipment?limit={n}",
    "/analytics/equipment",
    "/checkouts?limit={n}",
    "/equipment?fields=nothing",
    "/nothing",
)
CUT_OFF = "parts => parts.filter(part => part.scrollWidth > part.clientWidth).map(part => part.innerText)"
# How many points of the lines lie inside of a box, by more than the boxes' rounded corners.
BEHIND_BOXES = """() => {
  const origin = document.querySelector("#topology").getBoundingClientRect();
  const boxes = [...document.querySelectorAll("article")].map(box => box.getBoundingClientRect());
  const inside = ({x, y}) => boxes.some(box => x > box.left - origin.left + 3 && x < box.right - origin.left - 3
    && y > box.top - origin.top + 3 && y < box.bottom - origin.top - 3);
  const points = path => Array.from({length: 101}, (_, n) => path.getPointAtLength(path.getTotalLength() * n / 100));
  return [...document.querySelectorAll("#edges path")].flatMap(points).filter(inside).length;
}"""


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest_asyncio.fixture
async def page(stack: NativeStack, errors: list[str]) -> AsyncIterator[Page]:
    async with browser_page(errors) as page:
        await page.goto(f"{stack.ops}/")
        await page.select_option("#window", "900")
        await looked(page)
        yield page


async def looked(page: Page, times: int = 1) -> None:
    """Waits until it has asked the instances so often again."""
    wanted = await looks(page) + times
    async with asyncio.timeout(LOOK_SECONDS):
        while await looks(page) < wanted:  # noqa: ASYNC110 - the page's policy lets no one wait inside it
            await asyncio.sleep(0.1)


async def looks(page: Page) -> int:
    return int(await page.get_attribute("body", "data-looks") or 0)


async def told(stack: NativeStack) -> dict[str, Exposition]:
    """What each instance says, once nothing is left to be counted."""
    await asyncio.sleep(0.3)
    async with httpx.AsyncClient(base_url=stack.ops) as operators:
        return {name: Exposition((await operators.get(f"/metrics/{name}")).text) for name in INSTANCES}


def together(expositions: dict[str, Exposition]) -> Exposition:
    whole = Exposition()
    for exposition in expositions.values():
        whole.samples.update(exposition.samples)
    return whole


async def figure(page: Page, name: str) -> float:
    return float(await page.get_attribute(f'[data-figure="{name}"]', "data-value") or "nan")


async def exact(page: Page, node: str, name: str) -> float:
    return float(await page.get_attribute(f'[data-node="{node}"] [data-{name}]', f"data-{name}") or "nan")


async def send_load(stack: NativeStack) -> None:
    async with signed_in(stack) as client:
        for n in range(1, 31):
            await asyncio.gather(*(client.get(path.format(n=n % 7 + 1)) for path in PATHS))


async def test_its_numbers_are_those_of_the_metrics(stack: NativeStack, page: Page, errors: list[str]) -> None:
    before = together(await told(stack))
    await send_load(stack)
    instances = await told(stack)
    await looked(page, times=2)
    whole = together(instances)
    increase = whole.since(before)

    assert increase.total("http_requests_total") == 30 * len(PATHS) + 1
    assert await figure(page, "total") == whole.total("http_requests_total")
    for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        assert await figure(page, name) == pytest.approx(increase.quantile(share, DURATION)), name
    for name, exposition in instances.items():
        assert await exact(page, name, "total") == exposition.total("http_requests_total")
    hits = increase.total("cache_lookups_total", result="hit")
    missed = increase.total("cache_lookups_total", tier="redis")
    missed -= increase.total("cache_lookups_total", tier="redis", result="hit")
    assert hits > 0
    assert await figure(page, "hits") == pytest.approx(hits / (hits + missed))
    assert errors == []


async def test_it_draws_every_part(stack: NativeStack, page: Page) -> None:
    parts = {"nginx", *INSTANCES, "redis", "primary", "replica-1", "replica-2"}
    assert set(await page.eval_on_selector_all("article", "boxes => boxes.map(box => box.dataset.node)")) == parts
    await expect(page.locator("#summary")).to_have_text("All parts are up", timeout=LOOK_SECONDS * 1_000)
    for replica in ("replica-1", "replica-2"):
        assert await exact(page, replica, "lag") < 5
        assert await exact(page, replica, "open") == together(await told(stack)).total(
            "postgres_pool_connections", server=replica
        )
    # From nginx to each instance, from those to each of four servers, and the log's way to two replicas.
    assert await page.locator("#edges path").count() == 2 + 2 * 4 + 2


async def test_a_phone_shows_it_without_scrolling_sideways(page: Page) -> None:
    await page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    await looked(page)
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    boxes: list[dict[str, Any]] = [await box.bounding_box() for box in await page.locator("article").all()]  # type: ignore[misc]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] for box in boxes)
    for parts in ("article dl", "#figures dl", "table"):
        assert not await page.eval_on_selector_all(parts, CUT_OFF), parts


async def test_no_line_runs_behind_a_box_on_a_phone(page: Page) -> None:
    """The boxes stand in more rows than there: a line to the last one goes between those before."""
    await page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    await looked(page)
    assert await page.evaluate(BEHIND_BOXES) == 0
    straight = 'document.querySelector("#edges path").setAttribute("d", "M 100 0 V 1000")'
    assert await page.evaluate(f"() => {{ {straight}; return ({BEHIND_BOXES})(); }}") > 0  # the control


async def test_clients_do_not_get_it(stack: NativeStack) -> None:
    async with httpx.AsyncClient(base_url=stack.http) as public:
        for path in ("/operators/page.js", "/instances", "/health/api-1"):
            assert (await public.get(path)).status_code == httpx.codes.NOT_FOUND, path
