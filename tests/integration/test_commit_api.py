"""A 2xx means that the transaction is on disk: asserted on a real server, by transactions that fail at their COMMIT."""

from collections.abc import Iterator
from typing import Annotated, Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from fastapi import Depends, FastAPI, Request
from sqlalchemy import text

from app.dependencies import WriteSession, write_session
from app.platform.postgres import WriteSession as WriteSessionType
from tests.support.api import API, People, Person, connected, new_app, serving
from tests.support.calls import EQUIPMENT, add_item, body_of, check_out, item_body, listed, problem_of
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

REFUSED_AT_COMMIT = "refused at commit"
# Deferred: the INSERT succeeds, and what is wrong with it is found out by COMMIT.
TRAP = f"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '{REFUSED_AT_COMMIT}' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON equipment DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (new.name = '{REFUSED_AT_COMMIT}') EXECUTE FUNCTION refuse();
"""
SPRUNG = "DROP TRIGGER refuse ON equipment; DROP FUNCTION refuse()"


@pytest_asyncio.fixture(loop_scope="session")
async def trap(people: People) -> Any:
    """Rows of one name are refused by COMMIT."""
    async with connected(people.dsn) as connection:
        await connection.execute(TRAP)
        yield
        await connection.execute(SPRUNG)


@pytest.mark.usefixtures("trap")
async def test_the_trap_springs_at_commit_and_not_before(people: People, owner: Person) -> None:
    insert = "INSERT INTO equipment (organization_id, id, asset_tag, name, category) VALUES ($1, $1, 'a', $2, 'c')"
    async with connected(people.dsn) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(insert, owner.organization_id, REFUSED_AT_COMMIT)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await transaction.commit()


@pytest.mark.usefixtures("trap")
async def test_a_commit_that_fails_is_never_told_as_a_success(remote: httpx.AsyncClient) -> None:
    answer = await remote.post(EQUIPMENT, json=item_body(name=REFUSED_AT_COMMIT))
    problem_of(answer, 500)
    assert "x-consistency-token" not in answer.headers
    assert await listed(remote) == []


@pytest.mark.usefixtures("trap")
async def test_a_change_whose_commit_fails_is_not_made(remote: httpx.AsyncClient) -> None:
    item = await add_item(remote)
    path = f"{EQUIPMENT}/{item['id']}"
    answer = await remote.patch(path, json={"name": REFUSED_AT_COMMIT}, headers={"If-Match": "*"})
    problem_of(answer, 500)
    assert body_of(await remote.get(path)) == item


@pytest.mark.usefixtures("trap")
async def test_a_part_of_a_batch_whose_commit_fails_says_so(remote: httpx.AsyncClient) -> None:
    bad = {"id": "bad", "method": "POST", "url": EQUIPMENT, "body": item_body(name=REFUSED_AT_COMMIT)}
    good = {"id": "good", "method": "POST", "url": EQUIPMENT, "body": item_body()}
    answers = body_of(await remote.post(f"{API}/batch", json={"requests": [bad, good]}))["responses"]
    assert [answer["status"] for answer in answers] == [500, 201]
    assert len(await listed(remote)) == 1


# The control: the same session, released when FastAPI does so by default


INSERT = text(
    "INSERT INTO equipment (organization_id, id, asset_tag, name, category) VALUES (:id, :id, 'x', :name, 'c')"
)
LateSession = Annotated[WriteSessionType, Depends(write_session, scope="request")]


def with_two_endpoints(app: FastAPI) -> FastAPI:
    async def insert(session: WriteSessionType, request: Request) -> None:
        await session.execute(INSERT, {"id": request.headers["x-organization"], "name": REFUSED_AT_COMMIT})

    @app.post("/before")
    async def before(session: WriteSession, request: Request) -> str:
        await insert(session, request)
        return "done"

    @app.post("/after")
    async def after(session: LateSession, request: Request) -> str:
        await insert(session, request)
        return "done"

    return app


@pytest.fixture(scope="module")
def two_endpoints(services: DataServices, api_database: str) -> Iterator[str]:
    with serving(with_two_endpoints(new_app(services, api_database))) as url:
        yield url


@pytest.mark.usefixtures("trap")
async def test_control_committed_after_the_answer_the_client_has_a_success(two_endpoints: str, owner: Person) -> None:
    headers = {"X-Organization": str(owner.organization_id)}
    async with httpx.AsyncClient(base_url=two_endpoints, headers=headers) as client:
        assert (await client.post("/before")).status_code == 500
        assert (await client.post("/after")).status_code == 200


async def test_what_was_told_is_there_for_everyone(remote: httpx.AsyncClient, people: People) -> None:
    for _ in range(20):
        checkout = await check_out(remote, (await add_item(remote))["id"])
        assert await people.fetch("SELECT count(*) FROM checkouts WHERE id = $1", checkout["id"]) == 1
