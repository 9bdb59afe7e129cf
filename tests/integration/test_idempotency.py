"""`Idempotency-Key`: one effect, one answer, however often and wherever a request is sent."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from prometheus_client import REGISTRY

from app.platform.http import idempotency
from tests.support.api import API, People, Person, connected, in_process, new_app, recorded_sql, running
from tests.support.calls import DUE, EQUIPMENT, add_item, body_of, get_item, item_body, listed, problem_of
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

AT_ONCE = 20
WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"


@pytest.fixture
def key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid4())}


@pytest_asyncio.fixture(loop_scope="session")
async def unguarded(services: DataServices, api_database: str, owner: Person) -> AsyncIterator[httpx.AsyncClient]:
    """The control: the same service with the switch off."""
    app = new_app(services, api_database, idempotency_enabled=False)
    async with running(app), in_process(app, owner) as client:
        yield client


def outcomes(outcome: str) -> float:
    return REGISTRY.get_sample_value("idempotency_requests_total", {"outcome": outcome}) or 0.0


async def change_kept(people: People, key: dict[str, str], change: str) -> None:
    async with connected(people.dsn) as connection:
        done = await connection.execute(f"UPDATE idempotency_keys SET {change} WHERE key = $1", key["Idempotency-Key"])
    assert done == "UPDATE 1"


async def test_a_repeated_request_has_one_effect_and_the_same_answer(
    client: httpx.AsyncClient, key: dict[str, str]
) -> None:
    body = item_body()
    replayed = outcomes("replayed")
    first = await client.post(EQUIPMENT, json=body, headers=key)
    again = await client.post(EQUIPMENT, json=body, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    for name in ("content-type", "content-length", "location"):
        assert again.headers[name] == first.headers[name]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(await listed(client)) == 1
    assert outcomes("replayed") == replayed + 1


async def test_control_without_it_the_second_request_is_another_one(
    unguarded: httpx.AsyncClient, key: dict[str, str]
) -> None:
    body = item_body()
    body_of(await unguarded.post(EQUIPMENT, json=body, headers=key), 201)
    problem_of(await unguarded.post(EQUIPMENT, json=body, headers=key), 409, "asset-tag-taken")


async def test_changes_and_deletions_too(client: httpx.AsyncClient) -> None:
    item = await add_item(client)
    url, match = f"{EQUIPMENT}/{item['id']}", {"If-Match": '"1"'}
    change = {**match, "Idempotency-Key": str(uuid4())}
    first = await client.patch(url, json={"name": "Another name"}, headers=change)
    again = await client.patch(url, json={"name": "Another name"}, headers=change)
    assert body_of(again) == body_of(first)
    assert again.headers["etag"] == first.headers["etag"]
    assert (await get_item(client, item["id"]))["version"] == 2

    removal = {"Idempotency-Key": str(uuid4())}
    assert (await client.delete(url, headers=removal)).status_code == 204
    gone = await client.delete(url, headers=removal)
    assert (gone.status_code, gone.content) == (204, b"")
    problem_of(await client.delete(url), 404)


async def test_registration_too(anonymous: httpx.AsyncClient, key: dict[str, str]) -> None:
    """Of two strangers with the same key neither is in the other's way."""
    answers = [await anonymous.post(f"{API}/auth/register", json=someone(), headers=key) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {201}
    person = someone()
    first = await anonymous.post(f"{API}/auth/register", json=person, headers=key)
    again = await anonymous.post(f"{API}/auth/register", json=person, headers=key)
    assert body_of(again, 201) == body_of(first, 201)
    assert again.headers["idempotency-replayed"] == "true"


def someone() -> dict[str, str]:
    return {
        "email": f"{uuid4().hex}@example.com",
        "password": "correct horse battery",
        "full_name": "Ann",
        "organization": "Ann's",
    }


async def test_of_many_at_once_one_has_the_effect(client: httpx.AsyncClient, key: dict[str, str]) -> None:
    body = item_body()
    answers = await asyncio.gather(*(client.post(EQUIPMENT, json=body, headers=key) for _ in range(AT_ONCE)))
    assert Counter(answer.status_code for answer in answers) == {201: AT_ONCE}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == AT_ONCE - 1
    assert len(await listed(client)) == 1


async def test_control_of_many_at_once_without_it_most_fail(unguarded: httpx.AsyncClient, key: dict[str, str]) -> None:
    body = item_body()
    answers = await asyncio.gather(*(unguarded.post(EQUIPMENT, json=body, headers=key) for _ in range(AT_ONCE)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: AT_ONCE - 1}


async def test_a_key_that_is_held_for_long_is_in_use(
    services: DataServices, api_database: str, people: People, owner: Person, key: dict[str, str]
) -> None:
    app = new_app(services, api_database, database_lock_timeout_ms=100)
    async with running(app), in_process(app, owner) as client, connected(people.dsn) as other, other.transaction():
        await other.execute(
            "SELECT claim_idempotency_key($1, $2, $3)", owner.organization_id, owner.user_id, key["Idempotency-Key"]
        )
        answer = await client.post(EQUIPMENT, json=item_body(), headers=key)
        problem_of(answer, 409, "idempotency-key-in-use")
        assert answer.headers["retry-after"] == "1"
        assert await listed(client) == []


async def test_what_commits_while_a_repetition_waits_is_found(
    client: httpx.AsyncClient, people: People, owner: Person, key: dict[str, str]
) -> None:
    """The lookup must not have the snapshot of the statement that waited."""
    async with connected(people.dsn) as other:
        held = other.transaction()
        await held.start()
        name = key["Idempotency-Key"]
        await other.execute("SELECT claim_idempotency_key($1, $2, $3)", owner.organization_id, owner.user_id, name)
        repetition = asyncio.create_task(client.post(EQUIPMENT, json=item_body(), headers=key))
        await until_one_waits(people)
        await other.execute(
            "INSERT INTO idempotency_keys (organization_id, user_id, key, fingerprint, status, headers, tags)"
            " VALUES ($1, $2, $3, 'of another body', 201, '[]', '{}')",
            *(owner.organization_id, owner.user_id, name),
        )
        await held.commit()
        problem_of(await repetition, 422, "idempotency-key-reused")


async def until_one_waits(people: People) -> None:
    async with connected(people.dsn) as connection, asyncio.timeout(5):
        while not await connection.fetchval(WAITS):  # noqa: ASYNC110 - what is waited for doesn't know of it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("what", ["body", "path", "query", "method"])
async def test_a_key_belongs_to_one_request(client: httpx.AsyncClient, key: dict[str, str], what: str) -> None:
    item = await add_item(client)
    url, other = f"{EQUIPMENT}/{item['id']}", f"{EQUIPMENT}/{(await add_item(client))['id']}"
    body_of(await client.patch(url, json={"name": "One"}, headers={**key, "If-Match": "*"}))
    method, url, name = {
        "body": ("PATCH", url, "Two"),
        "path": ("PATCH", other, "One"),
        "query": ("PATCH", f"{url}?x=1", "One"),
        "method": ("DELETE", url, "One"),
    }[what]
    mismatches = outcomes("mismatch")
    answer = await client.request(method, url, json={"name": name}, headers={**key, "If-Match": "*"})
    problem_of(answer, 422, "idempotency-key-reused")
    assert outcomes("mismatch") == mismatches + 1
    assert (await get_item(client, item["id"]))["name"] == "One"


async def test_each_caller_has_keys_of_their_own(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, key: dict[str, str]
) -> None:
    mine = body_of(await client.post(EQUIPMENT, json=item_body(), headers=key), 201)
    theirs = body_of(await stranger.post(EQUIPMENT, json=item_body(), headers=key), 201)
    assert mine["id"] != theirs["id"]


async def test_what_fails_leaves_no_key(client: httpx.AsyncClient, key: dict[str, str]) -> None:
    """A 409 is rolled back: when the reason is gone the same request succeeds."""
    taken = await add_item(client)
    body = item_body(asset_tag=taken["asset_tag"])
    problem_of(await client.post(EQUIPMENT, json=body, headers=key), 409, "asset-tag-taken")
    assert (await client.delete(f"{EQUIPMENT}/{taken['id']}")).status_code == 204
    answer = await client.post(EQUIPMENT, json=body, headers=key)
    assert body_of(answer, 201)["asset_tag"] == taken["asset_tag"]
    assert "idempotency-replayed" not in answer.headers


async def test_a_right_that_was_lost_is_not_replayed(
    client: httpx.AsyncClient, viewer: httpx.AsyncClient, key: dict[str, str]
) -> None:
    body = item_body()
    body_of(await client.post(EQUIPMENT, json=body, headers=key), 201)
    problem_of(await viewer.post(EQUIPMENT, json=body, headers=key), 403)


@pytest.mark.parametrize(
    ("key", "spelling"), [("a-key", '"a-key"'), ('a"b\\c', '"a\\"b\\\\c"'), ("k" * 255, f'"{"k" * 255}"')]
)
async def test_a_key_is_the_same_with_and_without_quotes(client: httpx.AsyncClient, key: str, spelling: str) -> None:
    """As the draft's string and as most clients send it."""
    body = item_body()
    first = await client.post(EQUIPMENT, json=body, headers={"Idempotency-Key": key})
    again = await client.post(EQUIPMENT, json=body, headers={"Idempotency-Key": spelling})
    assert body_of(again, 201) == body_of(first, 201)
    assert again.headers["idempotency-replayed"] == "true"
    assert len(await listed(client)) == 1


NO_STRINGS = ['"', '""', '"a', '"a"b"', '"a\\b"', '"a";p=1', f'"{"k" * 256}"', '"ключ"']


@pytest.mark.parametrize("bad", ["", " ", "a b", "ключ", "k" * 256, "tab\there", *NO_STRINGS])
async def test_what_is_no_key_is_refused(client: httpx.AsyncClient, bad: str) -> None:
    answer = await client.post(EQUIPMENT, json=item_body(), headers={"Idempotency-Key": bad.encode()})
    problem_of(answer, 400, "malformed-request")
    assert await listed(client) == []


async def test_two_keys_are_refused(client: httpx.AsyncClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    problem_of(await client.post(EQUIPMENT, json=item_body(), headers=headers), 400, "malformed-request")


async def test_a_day_later_a_key_is_new(client: httpx.AsyncClient, people: People, key: dict[str, str]) -> None:
    first = body_of(await client.post(EQUIPMENT, json=item_body(), headers=key), 201)
    await change_kept(people, key, "created_at = now() - interval '23 hours 59 minutes'")
    problem_of(await client.post(EQUIPMENT, json=item_body(), headers=key), 422, "idempotency-key-reused")
    await change_kept(people, key, "created_at = now() - interval '24 hours 1 minute'")
    body = item_body()
    second = body_of(await client.post(EQUIPMENT, json=body, headers=key), 201)
    assert second["id"] != first["id"]
    assert body_of(await client.post(EQUIPMENT, json=body, headers=key), 201) == second


async def test_yesterdays_keys_are_known(client: httpx.AsyncClient, people: People, key: dict[str, str]) -> None:
    body = item_body()
    first = await client.post(EQUIPMENT, json=body, headers=key)
    await change_kept(people, key, "weekday = (weekday + 6) % 7, created_at = now() - interval '20 hours'")
    assert (await client.post(EQUIPMENT, json=body, headers=key)).content == first.content


async def test_only_partitions_of_days_past_are_emptied(people: People, owner: Person) -> None:
    async with connected(people.dsn) as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO idempotency_keys (organization_id, user_id, key, weekday, fingerprint, status, headers, tags)"
            " SELECT $1, $2, 'k', day, '', 200, '[]', '{}' FROM generate_series(0, 6) day",
            *(owner.organization_id, owner.user_id),
        )
        await connection.execute("SELECT expire_idempotency_keys()")
        kept = await connection.fetch("SELECT DISTINCT weekday FROM idempotency_keys")
        today = await connection.fetchval("SELECT extract(dow FROM now() AT TIME ZONE 'UTC')::int")
    assert {row["weekday"] for row in kept} == {(today + 6) % 7, today, (today + 1) % 7}


async def test_each_part_of_a_batch_has_its_own_key(client: httpx.AsyncClient) -> None:
    parts = [
        {"id": str(n), "method": "POST", "url": EQUIPMENT, "headers": {"Idempotency-Key": f"b{n}"}, "body": item_body()}
        for n in range(3)
    ]
    first = body_of(await client.post(f"{API}/batch", json={"requests": parts}))["responses"]
    again = body_of(await client.post(f"{API}/batch", json={"requests": parts}))["responses"]
    assert [part["body"] for part in again] == [part["body"] for part in first]
    assert all(part["headers"]["idempotency-replayed"] == "true" for part in again)
    assert len(await listed(client)) == len(parts)


async def test_a_batch_has_no_key_of_its_own(client: httpx.AsyncClient, key: dict[str, str]) -> None:
    """nginx would repeat what carries one."""
    part = {"id": "a", "method": "POST", "url": EQUIPMENT, "body": item_body()}
    problem_of(await client.post(f"{API}/batch", json={"requests": [part]}, headers=key), 400)
    assert await listed(client) == []


async def test_an_answer_that_was_too_large_to_keep(client: httpx.AsyncClient, key: dict[str, str]) -> None:
    """The effect is there once all the same, and the client is told where to look."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idempotency, "MAX_BODY_BYTES", 10)
        first = await client.post(EQUIPMENT, json=(body := item_body()), headers=key)
    again = await client.post(EQUIPMENT, json=body, headers=key)
    assert first.status_code == 201
    problem_of(again, 409, "answer-not-kept")
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert len(await listed(client)) == 1


async def test_a_replay_makes_up_for_what_the_first_process_left_undone(
    services: DataServices, api_database: str, client: httpx.AsyncClient, owner: Person, key: dict[str, str]
) -> None:
    """It died after COMMIT, before it dropped cached lists and remembered the caller's position."""
    body = item_body()
    assert await listed(client) == []
    dying = new_app(services, api_database)
    async with running(dying), in_process(dying, owner) as doomed:
        dying.state.resources.database._hooks = ()
        first = await doomed.post(EQUIPMENT, json=body, headers=key)
    assert await listed(client) == [], "the list is cached"
    again = await client.post(EQUIPMENT, json=body, headers=key)
    assert again.content == first.content
    assert again.headers["x-consistency-token"]
    assert [item["id"] for item in await listed(client)] == [body_of(first, 201)["id"]]


async def test_it_costs_one_round_trip_before_the_effect_and_one_with_it(
    client: httpx.AsyncClient, key: dict[str, str]
) -> None:
    with recorded_sql() as plain:
        await add_item(client)
    with recorded_sql() as keyed:
        await client.post(EQUIPMENT, json=item_body(), headers=key)
    assert len(keyed) == len(plain) + 2
    assert "claim_idempotency_key" in keyed[0]
    assert "INSERT INTO idempotency_keys" in keyed[-2], "before the entry in the audit log"


async def test_a_request_that_is_not_valid_asks_for_no_connection(
    client: httpx.AsyncClient, key: dict[str, str]
) -> None:
    with recorded_sql() as statements:
        problem_of(await client.post(EQUIPMENT, json={}, headers=key), 422, "validation-failed")
    assert statements == []


async def test_a_password_can_not_be_guessed_from_what_is_kept(
    services: DataServices, api_database: str, anonymous: httpx.AsyncClient, people: People, key: dict[str, str]
) -> None:
    """The fingerprint is keyed: without the secret the same request has another one."""
    person = someone()
    body_of(await anonymous.post(f"{API}/auth/register", json=person, headers=key), 201)
    app = new_app(services, api_database, secret_key="another secret, of the same database" * 2)
    async with running(app), in_process(app) as client:
        problem_of(await client.post(f"{API}/auth/register", json=person, headers=key), 409, "email-taken")


async def test_the_document_says_so(app: FastAPI) -> None:
    document = app.openapi()["paths"]
    create, login = document[EQUIPMENT]["post"], document[f"{API}/auth/login"]["post"]
    assert "Idempotency-Key" in [each.get("name") for each in create["parameters"]]
    assert "asset tag" in create["responses"]["409"]["description"]
    assert "idempotency-key-in-use" in create["responses"]["409"]["description"]
    assert "idempotency-key-reused" in create["responses"]["422"]["description"]
    assert "Idempotency-Replayed" in create["responses"]["201"]["headers"]
    assert "parameters" not in login


async def test_what_is_checked_out_once_is_out_once(client: httpx.AsyncClient, key: dict[str, str]) -> None:
    item = await add_item(client)
    url = f"{EQUIPMENT}/{item['id']}/checkouts"
    answers = [await client.post(url, json={"due_at": DUE}, headers=key) for _ in range(3)]
    assert len({body_of(answer, 201)["id"] for answer in answers}) == 1
    assert len(await listed(client, url)) == 1
