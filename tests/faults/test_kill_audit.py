"""kill -9 while clients post: every effect has its entry in the audit log, and every entry its effect."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.audit_verify import verified
from tests.support.api import (
    API,
    PROJECT,
    People,
    api_settings,
    connected,
    create_database,
    environment_of,
    in_database,
    over_socket,
)
from tests.support.stack import DataServices, Service, free_ports, temporary_folder

pytestmark = pytest.mark.timeout(600)

KILLS = 3 if os.environ.get("FAULTS") == "short" else 20
CONTROL_KILLS = 20  # at most: one that hits is enough
CLIENTS = 8
POSTING_SECONDS = 1.5  # a process answers its first write after half a second, when it knows the others
DATABASE = "kill_audit"

# COMMIT takes a while, so that many are under way at each kill; and so does what a second transaction would do.
LINGER = """
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(0.02 * random()); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON equipment DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION linger();
CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON audit_entries DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION linger();
"""
UNMATCHED = """
SELECT count(*) FILTER (WHERE target_id IS NULL), count(*) FILTER (WHERE equipment.id IS NULL), count(*)
FROM equipment FULL JOIN audit_entries
    ON target_id = equipment.id AND audit_entries.organization_id = equipment.organization_id
"""


@pytest.fixture(scope="module")
def people(services: DataServices) -> People:
    asyncio.run(prepare(services))
    return People(services, in_database(services.primary_dsn, DATABASE), api_settings(services, DATABASE))


async def prepare(services: DataServices) -> None:
    await create_database(services, DATABASE)
    async with connected(in_database(services.primary_dsn, DATABASE)) as connection:
        await connection.execute(LINGER)


async def test_every_effect_has_its_entry(people: People) -> None:
    await post_while_killing(people, "app.main:app", KILLS)
    without_entry, without_effect, both = await counts(people)
    assert (without_entry, without_effect) == (0, 0)
    assert both > KILLS
    assert (await verified(people.settings)).found == 0


async def test_control_entries_written_after_the_commit_get_lost(people: People) -> None:
    _, _, before = await counts(people)
    for _ in range(CONTROL_KILLS):
        await post_while_killing(people, "tests.support.late_audit:app", 1)
        lost, _, rows = await counts(people)
        if lost > 0:
            assert lost < rows - before, "the others had theirs"
            return
    pytest.fail("no kill fell between the two transactions")


async def counts(people: People) -> tuple[int, int, int]:
    async with connected(people.dsn) as connection:
        return tuple(await connection.fetchrow(UNMATCHED))


async def post_while_killing(people: People, application: str, kills: int) -> None:
    owner = await people.join()
    with server(people, application) as service:
        for number in range(kills):
            async with over_socket(service.name, owner) as client:
                posting = [asyncio.create_task(post(client, f"{owner.user_id}-{number}-{n}")) for n in range(CLIENTS)]
                await asyncio.sleep(POSTING_SECONDS)
                os.kill(service.pid, signal.SIGKILL)
                await asyncio.wait(posting)
            if number + 1 < kills:
                await asyncio.to_thread(restart, service)
    await settled(people)


async def post(client: httpx.AsyncClient, name: str) -> None:
    """One item after the other, until nobody answers."""
    for number in range(100_000):
        body = {"asset_tag": f"{name[-24:]}-{number}", "name": "A camera", "category": "camera"}
        try:
            await client.post(f"{API}/equipment", json=body)
        except httpx.TransportError:
            return


async def settled(people: People) -> None:
    """What the dead had under way is committed or rolled back."""
    others = "datname = $1 AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    busy = f"SELECT count(*) FROM pg_stat_activity WHERE {others}"
    async with asyncio.timeout(30), connected(people.dsn) as connection:
        while await connection.fetchval(busy, DATABASE):  # noqa: ASYNC110 - the dead tell no one
            await asyncio.sleep(0.1)


def restart(service: Service) -> None:
    assert service.process is not None
    service.process.wait(10)
    service.start()


@contextmanager
def server(people: People, application: str) -> Iterator[Service]:
    """One process; its name is its URL."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    environment = {**environment_of(people.settings), "LOG_LEVEL": "error", "ENVIRONMENT": "test"}
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--app-dir", str(PROJECT)]
    with temporary_folder() as folder:
        service = Service(url, command, lambda: answers(url), Path(folder) / "log", environment, as_service=False)
        service.start()
        try:
            yield service
        finally:
            service.stop()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
