"""The audit log: an entry with each effect, never changed, and found out where somebody did change it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app import worker
from app.platform.audit import Actor, record
from app.platform.audit.checkpoints import Checkpoints, anchor_of
from app.platform.audit.tables import AuditEntry
from app.platform.audit.trail import NoTrail
from app.platform.audit.verification import Report, chained, verify
from app.platform.postgres import Database
from app.platform.security.caller import Role
from app.resources import audit_keys, database_options
from app.rotation import Keyrings
from tests.support.api import (
    API,
    PROJECT,
    People,
    Person,
    api_settings,
    connected,
    create_database,
    environment_of,
    in_database,
    in_process,
    new_app,
    running,
)
from tests.support.calls import (
    EQUIPMENT,
    add_item,
    body_of,
    check_out,
    give_back,
    item_body,
    listed,
    pages,
    problem_of,
    wrong_places,
)
from tests.support.stack import DataServices, as_asyncpg, superuser

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATABASE = "audit"
AUDIT = f"{API}/audit"
NEVER = 86_400.0
LANES = 16


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def people(services: DataServices) -> People:
    await create_database(services, DATABASE)
    return People(services, in_database(services.primary_dsn, DATABASE), api_settings(services, DATABASE))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def app(services: DataServices, people: People) -> AsyncIterator[FastAPI]:
    """Makes no checkpoints by itself."""
    async with running(new_app(services, DATABASE, audit_checkpoint_seconds=NEVER)) as app:
        yield app


async def entries(client: httpx.AsyncClient, **params: Any) -> list[dict[str, Any]]:
    return await listed(client, AUDIT, **params)


async def checkpoint(app: FastAPI, people: People) -> None:
    database = app.state.resources.database
    await Checkpoints(database, audit_keys(people.settings), interval_seconds=NEVER).make()


# What is written


async def test_every_write_has_its_entry(client: httpx.AsyncClient, owner: Person) -> None:
    item = await add_item(client)
    await client.patch(f"{EQUIPMENT}/{item['id']}", json={"name": "B", "location": "C"}, headers={"If-Match": "*"})
    checkout = await check_out(client, item["id"])
    await give_back(client, checkout["id"])
    await client.delete(f"{EQUIPMENT}/{item['id']}")
    told = [(entry["action"], entry["target_id"], entry["details"]) for entry in await entries(client)]
    assert told[::-1] == [
        ("equipment.created", item["id"], {}),
        ("equipment.changed", item["id"], {"fields": ["location", "name"], "version": 2}),
        ("checkout.created", checkout["id"], {"equipment_id": item["id"]}),
        ("checkout.returned", checkout["id"], {"equipment_id": item["id"]}),
        ("equipment.removed", item["id"], {}),
    ]
    assert {entry["actor_id"] for entry in await entries(client)} == {str(owner.user_id)}


async def test_an_entry_says_from_where_and_in_which_request(app: FastAPI, owner: Person) -> None:
    async with in_process(app, owner, address="203.0.113.7") as client:
        answer = await client.post(EQUIPMENT, json=item_body(), headers={"X-Request-ID": "order-66"})
        [entry] = await entries(client)
    assert (entry["address"], entry["request_id"]) == ("203.0.113.7", "order-66")
    assert abs(int(entry["occurred_at"][17:19]) - int(answer.json()["created_at"][17:19])) in (0, 1, 59)


async def test_signing_up_is_the_first_entry(anonymous: httpx.AsyncClient, people: People) -> None:
    body = {"email": "new@example.com", "password": "a long password", "full_name": "N", "organization": "New"}
    user = body_of(await anonymous.post(f"{API}/auth/register", json=body), 201)
    action = "SELECT action FROM audit_entries WHERE organization_id = $1 AND actor_id = $2"
    assert await people.fetch(action, user["organization_id"], user["id"]) == "organization.created"


async def test_what_is_refused_has_none(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    problem_of(await client.post(EQUIPMENT, json=item_body(asset_tag=item["asset_tag"])), 409)
    problem_of(await client.patch(f"{EQUIPMENT}/{item['id']}", json={"name": "B"}, headers={"If-Match": '"9"'}), 412)
    assert len(await entries(client)) == 1


async def test_what_is_repeated_under_its_key_has_one(client: httpx.AsyncClient) -> None:
    body = item_body()
    for _ in range(3):
        body_of(await client.post(EQUIPMENT, json=body, headers={"Idempotency-Key": "once"}), 201)
    assert len(await entries(client)) == 1


async def test_an_effect_whose_entry_fails_is_undone(client: httpx.AsyncClient, people: People) -> None:
    async with connected(superuser(people.dsn)) as connection:
        await connection.execute("ALTER TABLE audit_entries ADD CONSTRAINT nothing CHECK (action = '') NOT VALID")
        try:
            assert (await client.post(EQUIPMENT, json=item_body())).status_code == 500
        finally:
            await connection.execute("ALTER TABLE audit_entries DROP CONSTRAINT nothing")
    assert await listed(client) == []


async def test_control_without_the_log_there_is_no_entry(services: DataServices, people: People, owner: Person) -> None:
    async with running(new_app(services, DATABASE, audit_enabled=False)) as app, in_process(app, owner) as client:
        await add_item(client)
        assert await entries(client) == []


async def test_what_the_worker_records_is_written_too(people: People, owner: Person, client: httpx.AsyncClient) -> None:
    rings = Keyrings.of(people.settings)
    async with worker.open_database(people.settings, rings) as database, database.write() as session:
        await session.execute(text("SELECT 1"))
        record(session, Actor(owner.organization_id), "test.done")
    [entry] = await entries(client)
    assert (entry["action"], entry["actor_id"]) == ("test.done", None)
    assert (await after(people, owner)).found == 0


async def test_where_no_trail_writes_it_nothing_is_recorded_in_silence(people: People, owner: Person) -> None:
    database = Database(database_options(people.settings))
    async with database.write() as session:
        with pytest.raises(NoTrail):
            record(session, Actor(owner.organization_id), "test.done")
    await database.aclose()


# Who may read it


async def test_administrators_read_it_and_others_do_not(app: FastAPI, people: People, owner: Person) -> None:
    for role, status in ((Role.ADMIN, 200), (Role.MEMBER, 403), (Role.VIEWER, 403)):
        async with in_process(app, await people.join(role, owner.organization_id)) as client:
            assert (await client.get(AUDIT)).status_code == status


async def test_a_stranger_sees_nothing_of_it(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    item = await add_item(client)
    assert await entries(stranger) == []
    assert await entries(stranger, target_id=item["id"]) == []


async def test_filters(client: httpx.AsyncClient, owner: Person) -> None:
    first, second = await add_item(client), await add_item(client)
    await client.delete(f"{EQUIPMENT}/{first['id']}")
    [removed] = await entries(client, action="equipment.removed")
    assert removed["target_id"] == first["id"]
    assert len(await entries(client, target_id=second["id"])) == 1
    assert len(await entries(client, actor_id=str(owner.user_id))) == 3
    assert await entries(client, actor_id=second["id"]) == []
    assert len(await entries(client, since=removed["occurred_at"])) == 1
    assert len(await entries(client, until=removed["occurred_at"])) == 2
    assert wrong_places(await client.get(AUDIT, params={"who": "me"})) == [["query", "who"]]


async def test_page_by_page_it_is_whole_while_it_grows(client: httpx.AsyncClient) -> None:
    items = [(await add_item(client))["id"] for _ in range(7)]
    seen = []
    async for page in pages(client, AUDIT, limit=2):
        seen += [entry["target_id"] for entry in page["items"]]
        await add_item(client)
    assert seen == items[::-1]


# Append only


@pytest.mark.parametrize("table", ["audit_entries", "audit_checkpoints"])
@pytest.mark.parametrize("change", ["UPDATE {} SET key_id = ''", "DELETE FROM {}", "TRUNCATE {}"])
async def test_the_service_itself_can_change_nothing(people: People, table: str, change: str) -> None:
    async with connected(people.dsn) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await connection.execute(change.format(table))
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f"GRANT UPDATE, DELETE, TRUNCATE ON {table} TO CURRENT_USER")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="is append-only"):
            await connection.execute(change.format(table))
        await transaction.rollback()


# Verification


@pytest_asyncio.fixture(loop_scope="session")
async def history(client: httpx.AsyncClient, app: FastAPI, people: People) -> AsyncIterator[None]:
    """Ten entries, five of them before a checkpoint, in the lanes of one connection or more."""
    for number in range(10):
        await add_item(client)
        if number == 4:
            await checkpoint(app, people)
    yield


@asynccontextmanager
async def as_an_attacker(people: People) -> AsyncIterator[AsyncConnection]:
    """Superuser, whom neither grants nor triggers hold; all is undone at the end."""
    engine = create_async_engine(as_asyncpg(superuser(people.dsn)))
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SET LOCAL session_replication_role = replica"))
            yield connection
            await connection.rollback()
    finally:
        await engine.dispose()


async def after(people: People, owner: Person, *tampering: str, anchor: str | None = None) -> Report:
    """What the verifier finds when this was done to the owner's entries."""
    async with as_an_attacker(people) as connection:
        for statement in tampering:
            await connection.execute(text(OWN + statement), {"organization": owner.organization_id})
        return await verify(connection, audit_keys(people.settings), anchor_of(anchor) if anchor else None)


# The longest of the organization's chains.
OWN = """
WITH longest AS (
    SELECT lane FROM audit_entries WHERE organization_id = :organization
    GROUP BY lane ORDER BY max(sequence) DESC LIMIT 1
), own AS (
    SELECT * FROM audit_entries JOIN longest USING (lane) WHERE organization_id = :organization
)
"""


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        ("UPDATE audit_entries a SET actor_id = a.id FROM own WHERE a.id = own.id AND own.sequence = 2", "changed"),
        (
            "UPDATE audit_entries a SET details = '[1]' FROM own WHERE a.id = own.id AND own.sequence = 2",
            "changed",
        ),
        (
            "UPDATE audit_entries a SET occurred_at = now() - interval '1 day' FROM own WHERE a.id = own.id",
            "changed",
        ),
        ("DELETE FROM audit_entries a USING own WHERE a.id = own.id AND own.sequence = 2", "1 entries before it"),
        ("DELETE FROM audit_entries a USING own WHERE a.id = own.id AND own.sequence <= 2", "2 entries before it"),
        (
            "UPDATE audit_entries a SET sequence = CASE own.sequence WHEN 2 THEN 1003 ELSE 1002 END FROM own"
            " WHERE a.id = own.id AND own.sequence IN (2, 3)",
            "entries before it are missing",
        ),
        (
            "UPDATE audit_entries a SET mac = other.mac, hash = other.hash, id = other.id, key_id = other.key_id,"
            " occurred_at = other.occurred_at, target_id = other.target_id, request_id = other.request_id"
            " FROM own, own other WHERE a.id = own.id AND own.sequence IN (2, 3) AND other.sequence = 5 - own.sequence",
            "does not follow",
        ),
        ("DELETE FROM audit_entries a USING own WHERE a.id = own.id", "that checkpoint"),
    ],
    ids=["actor", "details", "time", "removed", "first ones", "renumbered", "reordered", "all of a chain"],
)
async def test_tampering_is_found(people: People, owner: Person, history: None, tampering: str, found: str) -> None:
    report = await after(people, owner, tampering)
    assert report.found
    assert any(found in finding.what for finding in report.findings), report.findings
    assert all(str(owner.organization_id) in finding.where for finding in report.findings)


async def test_control_what_nobody_touched_is_in_order(people: People, owner: Person, history: None) -> None:
    report = await after(people, owner)
    assert (report.found, report.findings) == (0, [])
    assert report.entries >= 10
    assert report.checkpoints >= 1


async def relink_without(connection: AsyncConnection, owner: Person, sequence: int) -> None:
    """Take an entry out and make the rest of its chain anew: anybody can compute these hashes."""
    organization = {"organization": owner.organization_id}
    found = await connection.execute(text(OWN + "SELECT * FROM own ORDER BY sequence"), organization)
    rows = [row for row in found.mappings() if row["sequence"] != sequence]
    await connection.execute(text(OWN + "DELETE FROM audit_entries a USING own WHERE a.id = own.id"), organization)
    previous = b""
    for number, row in enumerate(rows, start=1):
        previous = chained(previous, row["lane"], number, row["mac"])
        await connection.execute(insert(AuditEntry).values({**row, "sequence": number, "hash": previous}))


async def test_a_chain_made_anew_is_found_by_its_checkpoint(people: People, owner: Person, history: None) -> None:
    async with as_an_attacker(people) as connection:
        await relink_without(connection, owner, sequence=1)
        report = await verify(connection, audit_keys(people.settings))
    assert report.found
    assert all("has signed" in finding.what for finding in report.findings)


async def test_control_without_checkpoints_it_would_not_be(people: People, owner: Person, history: None) -> None:
    async with as_an_attacker(people) as connection:
        await relink_without(connection, owner, sequence=1)
        await connection.execute(text("DELETE FROM audit_checkpoints"))
        assert (await verify(connection, audit_keys(people.settings))).found == 0


async def test_a_checkpoint_that_was_cut_off_is_found_by_one_kept_elsewhere(
    people: People, owner: Person, history: None
) -> None:
    newest = "SELECT number || ':' || encode(mac, 'hex') FROM audit_checkpoints ORDER BY number DESC LIMIT 1"
    cut = ("DELETE FROM audit_checkpoints", "DELETE FROM audit_entries a USING own WHERE a.id = own.id")
    anchor = await people.fetch(newest)
    assert (await after(people, owner, anchor=anchor)).found == 0
    assert (await after(people, owner, *cut, anchor=anchor)).found == 1
    assert (await after(people, owner, *cut)).found == 0, "control: without it there is nothing to hold it against"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_checkpoints SET heads = '[]'",
        "UPDATE audit_checkpoints SET made_at = now()",
        "UPDATE audit_checkpoints SET number = number + 1000",
    ],
)
async def test_a_checkpoint_that_was_changed_is_found(
    people: People, owner: Person, history: None, change: str
) -> None:
    report = await after(people, owner, change)
    assert any(finding.where.startswith("checkpoint") for finding in report.findings)


async def test_an_entry_that_was_slipped_in_is_found(people: People, owner: Person, history: None) -> None:
    """The service's own role may insert; it can't sign without the service's secret."""
    forged = (
        "SELECT append_audit_entry(:organization, gen_random_uuid(), now(), NULL, NULL, 'equipment.removed', NULL,"
        " '{}', '', '', (SELECT key_id FROM own LIMIT 1), sha256('guess'))"
    )
    report = await after(people, owner, forged)
    assert [finding.what.split(",")[0] for finding in report.findings] == ["was changed or forged"]


async def test_the_verifier_says_so_and_ends_with_an_error(people: People, client: httpx.AsyncClient) -> None:
    await add_item(client)
    environment = {**os.environ, **environment_of(people.settings)}
    environment["DATABASE_URL"] = as_asyncpg(people.dsn)
    wrong = {**environment, "SECRET_KEY": "another-secret-than-the-entries-were-signed-with"}
    right = {**wrong, "SECRET_KEYS_ACCEPTED": people.settings.secret_key.get_secret_value()}
    results = [await verifier(each) for each in (environment, wrong, right)]
    assert [code for code, _ in results] == [0, 1, 0]
    assert "complete, unchanged and in order" in results[0][1]
    assert "its key is not among those given" in results[1][1]


async def verifier(environment: dict[str, str]) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.audit_verify"), cwd=PROJECT, env=environment, stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


# Checkpoints


async def test_a_checkpoint_is_made_when_there_is_something_new(
    app: FastAPI, people: People, client: httpx.AsyncClient
) -> None:
    numbers = Checkpoints(app.state.resources.database, audit_keys(people.settings), interval_seconds=NEVER)
    await numbers.make()
    assert await numbers.make() is None
    await add_item(client)
    first, second = await asyncio.gather(numbers.make(), numbers.make())
    assert [first, second].count(None) == 1, "of two at once one makes it"


# Contention

APPEND = """
SELECT append_audit_entry($1, gen_random_uuid(), now(), NULL, NULL, 'test', NULL, '{}', '', '', '', '')
"""


@asynccontextmanager
async def transactions_at_their_end(people: People, owner: Person, count: int) -> AsyncIterator[None]:
    """Each has appended to the log of this organization, and does not commit."""
    async with AsyncExitStack() as open_ones:
        for _ in range(count):
            connection = await open_ones.enter_async_context(connected(people.dsn))
            transaction = connection.transaction()
            await transaction.start()
            open_ones.push_async_callback(transaction.rollback)
            await connection.execute(APPEND, owner.organization_id)
        yield


async def test_transactions_of_one_organization_do_not_wait_for_one_another(
    people: People, owner: Person, client: httpx.AsyncClient
) -> None:
    async with transactions_at_their_end(people, owner, LANES - 1):
        await add_item(client)
    assert len(await entries(client)) == 1


async def test_control_when_every_lane_is_taken_they_do(
    people: People, owner: Person, client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    async with transactions_at_their_end(people, owner, LANES):
        posted = asyncio.create_task(client.post(EQUIPMENT, json=item_body()))
        await add_item(stranger)
        assert not posted.done()
    assert (await posted).status_code == 201


async def test_many_writers_at_once_make_sound_chains(people: People, client: httpx.AsyncClient, owner: Person) -> None:
    await asyncio.gather(*(add_item(client) for _ in range(60)))
    assert len(await entries(client, limit=200)) == 60
    assert (await after(people, owner)).found == 0
