"""While there is no primary the replicas say together who was logged out: reads go on, and nobody comes back."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from app.platform.security import revocation_log
from tests.support.api import People, Person, api_settings, caught_up, create_database, in_process, new_app, running
from tests.support.api import in_database as dsn_of
from tests.support.calls import EQUIPMENT
from tests.support.stack import DataServices, data_services

DATABASE = "without_primary"


@pytest.fixture(scope="module")
def own() -> Iterator[DataServices]:
    """Its own: the primary is killed."""
    with data_services() as services:
        asyncio.run(create_database(services, DATABASE))
        yield services


@pytest.fixture
async def people(own: DataServices) -> AsyncIterator[tuple[Person, Person]]:
    """One who was disabled before the primary was lost, and one who was not."""
    people = People(own, dsn_of(own.primary_dsn, DATABASE), api_settings(own, DATABASE))
    gone, here = await people.join(), await people.join()
    async with running(new_app(own, DATABASE)) as app, app.state.resources.database.write() as session:
        await revocation_log.revoke(session, gone.user_id, least_epoch=1)
    await caught_up(own)
    own.services["primary"].kill()
    yield gone, here
    own.services["primary"].start()


async def status(client: httpx.AsyncClient, person: Person) -> int:
    return (await client.get(EQUIPMENT, headers=person.headers)).status_code


async def test_a_new_process_learns_it_from_the_replicas_if_they_show_all(
    own: DataServices, people: tuple[Person, Person]
) -> None:
    gone, here = people
    async with running(new_app(own, DATABASE)) as app, in_process(app) as client:
        assert [await status(client, person) for person in (gone, here)] == [401, 200]
    own.services["replica-2"].freeze()
    try:
        async with running(new_app(own, DATABASE)) as app, in_process(app) as client:
            assert [await status(client, person) for person in (gone, here)] == [503, 503]
    finally:
        own.services["replica-2"].thaw()
