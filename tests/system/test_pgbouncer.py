"""`make up POOLER=pgbouncer`: one PgBouncer between the instances and every server of Postgres."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import asyncpg
import httpx
import pytest

from deploy.local import postgres
from tests.support.api import connected
from tests.support.native import NativeStack, native_stack
from tests.support.stack import wait_until

pytestmark = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed")

API_CONNECTIONS = "SELECT client_port FROM pg_stat_activity WHERE datname = 'headroom' AND application_name ~ '^api-'"
WHERE = "SELECT pg_is_in_recovery(), current_setting('port')"


@pytest.fixture(scope="module")
def pooled() -> Iterator[NativeStack]:
    with native_stack(POOLER="pgbouncer", API_INSTANCES="1", WEB_CONCURRENCY="1", POSTGRES_REPLICAS="1") as started:
        yield started


def dsn(stack: NativeStack, database: str) -> str:
    return f"postgresql://headroom:{postgres.PASSWORD}@127.0.0.1:{stack.settings['PGBOUNCER_PORT']}/{database}"


def ports_of_server_connections(stack: NativeStack) -> set[int]:
    """Asked of PgBouncer's console, which knows simple queries alone."""
    psql = [postgres.program("psql"), "--tuples-only", "--no-align", dsn(stack, "pgbouncer"), "-c", "SHOW SERVERS"]
    rows = subprocess.run(psql, check=True, capture_output=True, text=True).stdout.splitlines()
    return {int(row.split("|")[7]) for row in rows}


def login_status(stack: NativeStack) -> int:
    demo = {"email": "demo@example.com", "password": "headroom-demo"}
    return httpx.post(f"{stack.http}/api/v1/auth/login", json=demo, timeout=15).status_code


def test_the_service_is_whole(pooled: NativeStack) -> None:
    assert login_status(pooled) == 200
    assert httpx.get(f"{pooled.ops}/health").json()["status"] == "healthy"


async def test_all_its_connections_are_pgbouncers(pooled: NativeStack) -> None:
    for server in pooled.status()["databases"]:
        assert await ports_of_the_service(server["dsn"]) <= ports_of_server_connections(pooled)


async def ports_of_the_service(dsn: str) -> set[int]:
    """A connection bears the name of whom it was lent to last: the worker's, say, until the service asks again."""
    async with asyncio.timeout(20), connected(dsn) as connection:
        while not (rows := await connection.fetch(API_CONNECTIONS)):  # noqa: ASYNC110 - no one tells
            await asyncio.sleep(0.05)
    return {row["client_port"] for row in rows}


@pytest.mark.parametrize(("database", "name"), [("headroom", "primary"), ("headroom_replica_1", "replica-1")])
async def test_each_name_leads_to_its_own_server(pooled: NativeStack, database: str, name: str) -> None:
    direct = {server["name"]: server["dsn"] for server in pooled.status()["databases"]}[name]
    connection = await asyncpg.connect(dsn(pooled, database), statement_cache_size=0)
    try:
        here = await connection.fetchrow(WHERE)
    finally:
        await connection.close()
    async with connected(direct) as connection:
        assert here == await connection.fetchrow(WHERE)


async def test_what_cannot_be_kept_for_a_client_is_refused(pooled: NativeStack) -> None:
    """A service that does not know of the pooler fails at once, instead of reading without its limits."""
    with pytest.raises(asyncpg.PostgresError, match="unsupported startup parameter"):
        await asyncpg.connect(dsn(pooled, "headroom"), server_settings={"default_transaction_read_only": "on"})


def test_a_pgbouncer_that_is_killed_comes_back(pooled: NativeStack) -> None:
    before = pooled.pid("pgbouncer")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: login_status(pooled) == 200, "the service")
    assert pooled.pid("pgbouncer") != before


def test_no_other_pooler_is_known(pooled: NativeStack) -> None:
    other = NativeStack(pooled.folder, pooled.settings | {"POOLER": "odyssey"})
    assert "POOLER is pgbouncer or nothing" in other.run("up").stderr
