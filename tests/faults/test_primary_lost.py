"""The primary killed under load: the best replica takes over, and has every write that was acknowledged.

Each replica has its WAL through a slow network, so that a kill loses what is under way. Controls: commits that wait
for no replica, and the promotion of a replica that is behind; both lose acknowledged writes.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import httpx
import pytest

from deploy.local import postgres
from deploy.local.postgres import Cluster, Server
from deploy.local.programs import primary_url
from deploy.local.promotion import drop_old_slots, furthest, promote, received, rejoin, set_aside
from tests.support.api import (
    People,
    api_settings,
    connected,
    create_database,
    in_database,
    in_process,
    new_app,
    running,
)
from tests.support.calls import EQUIPMENT, item_body
from tests.support.database import administer, until
from tests.support.delaying_proxy import DelayingProxy
from tests.support.stack import DataServices, Service, data_services, wait_until

pytestmark = pytest.mark.timeout(1_200)

LOSSES = 3 if os.environ.get("FAULTS") == "short" else 20
CLIENTS = 8
DATABASE = "losses"
CALM_SECONDS = 1.6  # the first half second of a process is spent on getting to know the others
NEAR_SECONDS, FAR_SECONDS = 0.02, 0.4
SECONDS_TO_WRITE_AGAIN = 5.0

Choose = Callable[[Iterable[Server]], Server]


def hindmost(replicas: Iterable[Server]) -> Server:
    return min(replicas, key=received)


@dataclass
class SlowNetwork:
    """A cluster whose replicas are near to the primary or far from it."""

    services: DataServices
    cluster: Cluster
    proxies: dict[Server, DelayingProxy]

    def service(self, server: Server) -> Service:
        return self.services.services[server.label]

    def place(self, near: Server) -> None:
        for server, proxy in self.proxies.items():
            proxy.delay_seconds = NEAR_SECONDS if server == near else FAR_SECONDS

    def lose_primary(self, choose: Choose) -> Server:
        """Killed, and replaced; the lost one is returned."""
        lost = self.cluster.primary
        self.service(lost).kill()
        chosen = choose(self.cluster.replicas)
        for proxy in self.proxies.values():
            proxy.target, proxy.delay_seconds = chosen.port, 0.0
        set_aside(lost)
        self.cluster = promote(chosen, self.cluster)
        return lost

    def restart(self, server: Server) -> None:
        self.service(server).stop()
        self.service(server).start()

    def bring_back(self, server: Server) -> None:
        rejoin(server, self.cluster.primary)
        self.service(server).start()
        drop_old_slots(server)

    def follow(self) -> None:
        """Returns when every replica is there again."""
        streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        wait_until(
            lambda: postgres.query(self.cluster.primary, streaming) == str(len(self.cluster.replicas)), "the replicas"
        )


@pytest.fixture(scope="module")
def services() -> Iterator[DataServices]:
    with data_services() as started:
        asyncio.run(create_database(started, DATABASE))
        yield started


@asynccontextmanager
async def slow_network(services: DataServices) -> AsyncIterator[SlowNetwork]:
    """With the roles that the losses before have left; who was lost last is brought back."""
    async with AsyncExitStack() as open_proxies:
        cluster = postgres.cluster(
            services.cluster.primary.data.parent, [server.port for server in services.cluster.servers]
        )
        proxies = {
            server: await open_proxies.enter_async_context(DelayingProxy(cluster.primary.port).running())
            for server in cluster.servers
        }
        network = SlowNetwork(services, cluster, proxies)
        for server, proxy in proxies.items():
            conninfo = f"host={postgres.HOST} port={proxy.port} user=replicator application_name={server.name}"
            network.service(server).command.append(f"--primary_conninfo={conninfo}")
        for replica in cluster.replicas:
            await asyncio.to_thread(network.bring_back if not replica.data.exists() else network.restart, replica)
        yield network


@dataclass
class Writes:
    """Ids of what was answered with 201, and when the last answer of that kind came."""

    acknowledged: set[str] = field(default_factory=set)
    latest: float = 0.0

    async def next(self) -> None:
        """Raises `TimeoutError` when none is acknowledged within the bound."""
        before = self.latest
        await until(lambda: self.latest != before, SECONDS_TO_WRITE_AGAIN)


@asynccontextmanager
async def writing(client: httpx.AsyncClient) -> AsyncIterator[Writes]:
    writes = Writes()

    async def write() -> None:
        for _ in count():
            answer = await client.post(EQUIPMENT, json=item_body())
            if answer.status_code == 201:
                writes.acknowledged.add(answer.json()["id"])
                writes.latest = time.monotonic()
            else:
                await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as clients:
        tasks = [clients.create_task(write()) for _ in range(CLIENTS)]
        yield writes
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def writer(network: SlowNetwork) -> AsyncIterator[httpx.AsyncClient]:
    """The service itself, which knows all hosts."""
    settings = {"database_url": in_database_of_all(network.cluster)}
    dsn = in_database(network.cluster.primary.dsn, DATABASE)
    people = People(network.services, dsn, api_settings(network.services, DATABASE))
    app = new_app(network.services, DATABASE, **settings)
    async with running(app), in_process(app, await people.join()) as client:
        yield client


def in_database_of_all(cluster: Cluster) -> str:
    return primary_url(cluster).replace("@/headroom?", f"@/{DATABASE}?")


async def lost_of(network: SlowNetwork, writes: Writes) -> set[str]:
    """Acknowledged, and not there."""
    async with connected(in_database(network.cluster.primary.dsn, DATABASE)) as connection:
        rows = await connection.fetch("SELECT id FROM equipment")
    return writes.acknowledged - {str(row["id"]) for row in rows}


async def test_no_acknowledged_write_is_lost(services: DataServices) -> None:
    """Each replica is the nearer one in turn."""
    async with slow_network(services) as network, writer(network) as client:
        for number in range(LOSSES):
            network.place(near=network.cluster.replicas[number % 2])
            async with writing(client) as writes:
                await asyncio.sleep(CALM_SECONDS)
                before = len(writes.acknowledged)
                lost = await asyncio.to_thread(network.lose_primary, furthest)
                await writes.next()
            assert before > CLIENTS, "there was load"
            assert await lost_of(network, writes) == set()
            await asyncio.to_thread(network.bring_back, lost)
            await asyncio.to_thread(network.follow)


async def lose_and_count(services: DataServices, choose: Choose, *, asynchronous: bool) -> int:
    async with slow_network(services) as network, writer(network) as client:
        near, _ = network.cluster.replicas
        network.place(near)
        if asynchronous:
            network.proxies[near].delay_seconds = FAR_SECONDS
            dsn = network.cluster.primary.dsn
            await administer(dsn, "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
        async with writing(client) as writes:
            await asyncio.sleep(CALM_SECONDS)
            await asyncio.to_thread(network.lose_primary, choose)
        return len(await lost_of(network, writes))


async def test_control_commits_that_wait_for_nobody_are_lost(services: DataServices) -> None:
    assert await lose_and_count(services, furthest, asynchronous=True) > 0


async def test_control_a_replica_that_is_behind_lacks_some(services: DataServices) -> None:
    assert await lose_and_count(services, hindmost, asynchronous=False) > 0
