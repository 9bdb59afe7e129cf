"""Each alert driven for real: a fault makes it fire, and it clears when the fault is over. Times are a fiftieth."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.support.alert_faults import FAULTS, GROUNDS, as_it_is, frozen
from tests.support.native import NativeStack, native_stack
from tests.support.pagers import Letterbox, Pager, mail, pager
from tests.support.stack import temporary_folder

pytestmark = pytest.mark.timeout(900)

SHORT = os.environ.get("FAULTS") == "short"
SHORT_FAULTS = [("InstanceDown",), ("RedisDown", "BreakerOpen")]
FIRES_SECONDS = 120


@dataclass(frozen=True)
class Watched:
    stack: NativeStack
    pager: Pager
    letters: Letterbox
    prometheus: str

    async def firing(self) -> set[str]:
        async with httpx.AsyncClient(base_url=self.prometheus, timeout=10) as client:
            alerts = (await client.get("/api/v1/alerts")).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def until(self, reached: Callable[[set[str]], bool], what: str) -> None:
        now: set[str] = set()
        try:
            async with asyncio.timeout(FIRES_SECONDS):
                while not reached(now := await self.firing()):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.5)
        except TimeoutError:
            pytest.fail(f"{what}: firing are {sorted(now)}")


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    port = free_port()
    with temporary_folder() as folder, pager() as pages, mail(port) as letters:
        key = folder / "key"
        key.write_text("0123456789abcdef0123456789abcdef")
        tells = {"PAGERDUTY_URL": pages.url, "PAGERDUTY_KEY_FILE": str(key), "SMTP_REQUIRE_TLS": "false"}
        tells |= {"ALERT_EMAIL": "operators@example.com", "SMTP_SMARTHOST": f"127.0.0.1:{port}"}
        limits = {"RATE_LIMIT_SCALE": "1000", "RATE_LIMIT_DEFAULT": "1/hour", "DATABASE_POOL_TIMEOUT_MS": "500"}
        with native_stack(OBSERVE="1", OBSERVE_TIME_SCALE="0.02", WEB_CONCURRENCY="1", **tells, **limits) as stack:
            yield Watched(stack, pages, letters, stack.status()["urls"]["prometheus"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("alerts", SHORT_FAULTS if SHORT else list(FAULTS), ids=lambda alerts: alerts[0])
async def test_they_fire_and_clear(watched: Watched, alerts: tuple[str, ...]) -> None:
    wanted = set(alerts)
    async with GROUNDS.get(alerts, as_it_is)(watched.stack) as ground:
        await watched.until(lambda firing: not wanted & firing, f"{alerts} silent before")
        async with FAULTS[alerts](ground):
            await watched.until(lambda firing: wanted <= firing, f"{alerts} firing")
        await watched.until(lambda firing: not wanted & firing, f"{alerts} silent afterwards")


async def test_whom_it_concerns_is_told(watched: Watched) -> None:
    """The page wakes somebody and is taken back, and mail goes out; the ticket is in the mail alone."""
    async with frozen(watched.stack, "api-2"):
        await told(lambda: "trigger" in watched.pager.actions("InstanceDown"))
    await told(lambda: watched.pager.actions("InstanceDown")[-1] == "resolve")
    await told(lambda: any("FIRING" in subject and "InstanceDown" in subject for subject in watched.letters.subjects))
    assert {event["routing_key"] for event in watched.pager.events} == {"0123456789abcdef0123456789abcdef"}
    assert "runbooks/restart-and-release.md" in str(watched.pager.events)
    async with frozen(watched.stack, "node-exporter"):
        await told(lambda: any("TargetDown" in subject for subject in watched.letters.subjects))
    assert not watched.pager.actions("TargetDown")
    assert not watched.pager.actions("Watchdog")


async def test_the_watchdog_fires_always(watched: Watched) -> None:
    await watched.until(lambda firing: "Watchdog" in firing, "Watchdog firing")


async def told(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(FIRES_SECONDS):
        while not reached():  # noqa: ASYNC110 - the servers run in threads
            await asyncio.sleep(0.2)
