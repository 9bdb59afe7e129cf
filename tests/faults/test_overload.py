"""Three times as much as the service can do, from users who come whether it answers or not.

The bottleneck is a pool of few connections to a Postgres that is 80 ms away, so that the machine's speed decides
nothing. Users wait 1.5 s; who hears nothing asks again, four times in all, which is what keeps a service down after
the load has gone (N. Bronson et al., "Metastable Failures in Distributed Systems", HotOS 2021).

Controls, which have to fail: without admission, and with a limit that is fixed instead of found. And the bulkhead, with
room for all at the gate: many exact totals take half of the pool's connections, without it all of them.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.api import API, People, Person, api_settings, create_database, in_database
from tests.support.calls import EQUIPMENT
from tests.support.delaying_proxy import DelayingProxy
from tests.support.open_loop import OpenLoop, Outcome, Question
from tests.support.served import metric, served
from tests.support.stack import DataServices, data_services

FULL = os.environ.get("FAULTS", "full") == "full"
OVERLOAD_SECONDS = 30.0 if FULL else 6.0
AFTER_SECONDS = 15.0 if FULL else 7.0
RECOVERY_SECONDS = 5.0
SETTLE_SECONDS = 2.0  # at the begin of the overload: until the limit has found its place
WINDOW_SECONDS = 5.0 if FULL else 3.5
PATIENCE_SECONDS = 1.5
DISTANCE_SECONDS = 0.08
CONNECTIONS = 1_000 if FULL else 300
WAITING = 200 if FULL else 60
DATABASE = "overload"
UNIQUE = "location={number}"  # of those who ask the same at the same time one asks for all
BOTTLENECK = {
    "DATABASE_POOL_SIZE": "4",
    "DATABASE_POOL_OVERFLOW": "0",
    "CACHE_ENABLED": "false",
    "ADMISSION_MIN_IN_FLIGHT": "4",
}
pytestmark = pytest.mark.timeout(300)


@dataclass
class Service:
    """`port` of the process, which reaches Postgres through a proxy, and a user of it."""

    port: int
    person: Person

    def questions(self) -> list[Question]:
        return [
            Question("list", f"{EQUIPMENT}?{UNIQUE}", self.person.headers, 0.9),
            Question("critical", f"{API}/auth/me", self.person.headers, 0.05),
            Question("sheddable", f"{EQUIPMENT}?total=exact&{UNIQUE}", self.person.headers, 0.05),
        ]


@pytest.fixture(scope="module")
def few_services() -> Iterator[DataServices]:
    with data_services(replicas=0) as started:
        asyncio.run(create_database(started, DATABASE))
        yield started


@asynccontextmanager
async def distant(
    services: DataServices, folder: Path, *, seconds: float = DISTANCE_SECONDS, **environment: str
) -> AsyncIterator[Service]:
    proxy = DelayingProxy(services.cluster.primary.port)
    async with proxy.running():
        url = in_database(services.environment["DATABASE_URL"], DATABASE)
        assert f":{proxy.target}/" in url, url
        settings = api_settings(
            services,
            DATABASE,
            rate_limit_scale=1_000_000,
            database_replica_urls="",
            database_url=url.replace(f":{proxy.target}/", f":{proxy.port}/"),
        )
        people = People(services, in_database(services.primary_dsn, DATABASE), settings)
        person = await people.join()
        await people.own_items(person, 5)
        async with served(settings, folder, **BOTTLENECK | environment) as port:
            proxy.delay_seconds = seconds
            yield Service(port, person)


@dataclass(frozen=True)
class Run:
    """Rates are per second; `begun` is when the overload began, `eased` when it ended."""

    peak: float
    begun: float
    eased: float
    outcomes: list[Outcome]

    def good(self, since: float, until: float, kind: str | None = None) -> list[bool]:
        """Of those that came then: whether each had its answer in time."""
        return [
            outcome.status == 200
            for outcome in self.outcomes
            if since <= outcome.due < until and kind in (None, outcome.kind)
        ]

    def least_goodput(self) -> float:
        """Of all windows of the overload, against the peak."""
        count = int((self.eased - self.begun - SETTLE_SECONDS) / WINDOW_SECONDS)
        starts = [self.begun + SETTLE_SECONDS + number * WINDOW_SECONDS for number in range(count)]
        return min(sum(self.good(start, start + WINDOW_SECONDS)) for start in starts) / WINDOW_SECONDS / self.peak

    def share(self, kind: str) -> float:
        good = self.good(self.begun, self.eased, kind)
        return sum(good) / len(good)

    def story(self) -> list[Counter[int]]:
        """How those of each second fared, for whoever has to find out why."""
        last = int(max(outcome.due for outcome in self.outcomes))
        seconds = [[each.status for each in self.outcomes if int(each.due) == second] for second in range(last + 1)]
        return [Counter(statuses) for statuses in seconds]

    def recovered(self) -> float:
        """The share of good answers from `RECOVERY_SECONDS` after the overload on."""
        good = self.good(self.eased + RECOVERY_SECONDS, float("inf"))
        return sum(good) / len(good)


async def overload(service: Service) -> Run:
    questions = service.questions()
    async with OpenLoop(service.port, PATIENCE_SECONDS, tries=4) as load:
        await load.together(questions[0], clients=1, seconds=4)
        peak = await load.together(questions[0], clients=8, seconds=2)
        begun = load.now()
        await load.offer(questions, 3 * peak, OVERLOAD_SECONDS)
        eased = load.now()
        await load.offer(questions, 0.6 * peak, AFTER_SECONDS)
        await load.finish()
    return Run(peak, begun, eased, load.outcomes)


async def test_goodput_holds_and_comes_back(few_services: DataServices, tmp_path: Path) -> None:
    async with distant(few_services, tmp_path) as service:
        run = await overload(service)
    assert run.least_goodput() >= 0.75, run.story()
    assert run.share("critical") >= 0.99
    assert run.share("sheddable") < run.share("list")
    assert run.recovered() >= 0.99, run.story()


async def test_control_without_admission_it_stays_down(few_services: DataServices, tmp_path: Path) -> None:
    async with distant(few_services, tmp_path, ADMISSION_ENABLED="false") as service:
        run = await overload(service)
    assert run.least_goodput() < 0.75
    assert run.share("critical") < 0.99
    assert run.recovered() < 0.5


@pytest.mark.skipif(not FULL, reason="the short form has the other control")
async def test_control_a_fixed_limit_is_not_enough(few_services: DataServices, tmp_path: Path) -> None:
    fixed = {"ADMISSION_MIN_IN_FLIGHT": "400", "ADMISSION_MAX_IN_FLIGHT": "400"}
    async with distant(few_services, tmp_path, **fixed) as service:
        run = await overload(service)
    assert run.least_goodput() < 0.75


async def test_a_thousand_connections_are_all_answered_in_turn(few_services: DataServices, tmp_path: Path) -> None:
    """Each is answered or refused, none is left waiting, and who comes back as told has an answer soon."""
    async with distant(few_services, tmp_path, seconds=0.02, ADMISSION_MAX_WAITING=str(WAITING)) as service:
        [question, *_] = service.questions()
        ready = Question("ready", "/readyz", {})
        statuses: Counter[int] = Counter()

        async def insist(load: OpenLoop) -> None:
            while (status := (await load.ask(question)).status) != 200:
                statuses[status] += 1
                await asyncio.sleep(random.uniform(1, 3))

        async with OpenLoop(service.port, patience_seconds=10) as load, asyncio.timeout(60):
            clients = asyncio.gather(*(insist(load) for _ in range(CONNECTIONS)))
            while not clients.done():
                assert (await load.ask(ready)).status == 200
                assert metric(service.port, "admission_waiting") <= WAITING
                await asyncio.sleep(0.2)
            await clients
        assert set(statuses) == {503}
        assert metric(service.port, 'admission_refused_total{criticality="normal",reason="full"}') > 0


async def beside_many_totals(service: Service, seconds: float = 3.0) -> tuple[float, Counter[int]]:
    """The share of their answers that two readers still get, and how those who asked for exact totals fared."""
    cheap, _, expensive = service.questions()
    async with OpenLoop(service.port, PATIENCE_SECONDS) as readers, OpenLoop(service.port, PATIENCE_SECONDS) as others:
        await readers.together(cheap, clients=4, seconds=2)  # opens the pool
        alone = await readers.together(cheap, clients=2, seconds=seconds)
        beside, _ = await asyncio.gather(
            readers.together(cheap, clients=2, seconds=seconds), others.together(expensive, clients=40, seconds=seconds)
        )
    return beside / alone, Counter(outcome.status for outcome in others.outcomes)


ROOM = {"ADMISSION_MIN_IN_FLIGHT": "200", "ADMISSION_MAX_IN_FLIGHT": "200"}


async def test_what_is_expensive_takes_a_share_of_the_pool_alone(few_services: DataServices, tmp_path: Path) -> None:
    async with distant(few_services, tmp_path, **ROOM) as service:
        share, totals = await beside_many_totals(service)
    assert share >= 0.5, totals
    assert set(totals) == {200, 503}


async def test_control_without_bulkhead_cheap_reads_starve(few_services: DataServices, tmp_path: Path) -> None:
    async with distant(few_services, tmp_path, **ROOM, ADMISSION_SHEDDABLE_POOL_SHARE="100") as service:
        share, totals = await beside_many_totals(service)
    assert share < 0.5, totals
