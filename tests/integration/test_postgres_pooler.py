"""The same promises through PgBouncer in transaction mode, where a connection is kept for one transaction only."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.platform.postgres.database import Database
from app.platform.postgres.errors import StatementTimeout
from app.platform.resilience.deadlines import deadline
from deploy.local import postgres
from deploy.local.users import service_folder
from tests.support.database import create_registers, new_request, open_database, read_version, write_version
from tests.support.stack import DataServices, Service, free_ports

pytestmark = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed")

SERVER_CONNECTIONS = 3
CONFIGURATION = """
[databases]
{databases}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 500
"""


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture(scope="module")
def pooler(services: DataServices) -> Iterator[str]:
    """URL up to the database's name: `primary`, `replica_1`, `replica_2`; `primary_probe`, ... have their own pools."""
    databases = "\n".join(
        f"{name} = host=127.0.0.1 port={server.port} dbname=headroom user=headroom password={postgres.PASSWORD}"
        for server in services.cluster.servers
        for name in (server.name, f"{server.name}_probe")
    )
    [port] = free_ports(1)
    with TemporaryDirectory(prefix="headroom-", dir="/tmp") as name:
        folder = service_folder(Path(name))
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(CONFIGURATION.format(databases=databases, port=port, connections=SERVER_CONNECTIONS))
        command = [str(shutil.which("pgbouncer")), str(configuration)]
        service = Service("pgbouncer", command, lambda: answers(port), folder / "pgbouncer.log")
        service.start()
        try:
            yield f"postgresql+asyncpg://headroom@127.0.0.1:{port}"
        finally:
            service.stop()


def urls(pooler: str, *, probes_apart: bool = True) -> dict[str, Any]:
    def url(database: str, name: str) -> str:
        return f"{pooler}/{database}?name={name}" + (f"&probe={database}_probe" if probes_apart else "")

    return {
        "url": url("primary", "primary"),
        "replica_urls": (url("replica_1", "one"), url("replica_2", "two")),
        "statement_cache_size": 0,
    }


@pytest.fixture
async def database(services: DataServices, pooler: str) -> AsyncIterator[Database]:
    async with open_database(services, **urls(pooler)) as opened:
        await create_registers(opened, *(f"caller-{number}" for number in range(20)))
        yield opened


async def test_a_read_refuses_to_write(database: Database) -> None:
    with pytest.raises(DBAPIError, match="read-only transaction"):
        async with database.read() as session:
            await session.execute(text("INSERT INTO registers VALUES ('c', 1)"))


async def test_connections_are_shared_by_many_callers_and_reads_follow_writes(database: Database) -> None:
    stale = 0

    async def call(name: str) -> None:
        nonlocal stale
        for version in range(1, 11):
            context = new_request()
            await write_version(database, name, version)
            new_request(wal_required=context.wal_written)
            stale += await read_version(database, name) < version

    await asyncio.gather(*(call(f"caller-{number}") for number in range(20)))
    assert stale == 0


async def test_reads_go_to_replicas(database: Database) -> None:
    context = new_request()
    await read_version(database, "caller-1")
    assert context.served_by in ("replica:one", "replica:two")


async def test_limits_travel_with_the_transaction(database: Database) -> None:
    deadline.set(asyncio.get_running_loop().time() + 0.2)
    with pytest.raises(StatementTimeout):
        async with database.write() as session:
            await session.execute(text("SELECT pg_sleep(3)"))


async def disturbed_by_a_full_pooler(database: Database) -> bool:
    """Whether a replica is ejected, or a read fails, while reads wait for longer than a probe may take."""

    async def read() -> None:
        new_request()
        async with database.read() as session:
            await session.execute(text("SELECT pg_sleep(0.4)"))

    reads = [asyncio.create_task(read()) for _ in range(8 * SERVER_CONNECTIONS)]
    _, waiting = await asyncio.wait(reads, timeout=1.0)
    assert waiting
    ejected = not all(replica.eligible for replica in database.replicas)
    return any(await asyncio.gather(*reads, return_exceptions=True)) or ejected


async def test_a_full_pooler_is_not_taken_for_a_server_that_is_down(database: Database) -> None:
    assert not await disturbed_by_a_full_pooler(database)


async def test_control_a_probe_that_queues_behind_the_reads(services: DataServices, pooler: str) -> None:
    async with open_database(services, **urls(pooler, probes_apart=False)) as database:
        assert await disturbed_by_a_full_pooler(database)
