"""Statements and rows are counted by the repository's method that sends them."""

import httpx
import pytest
from prometheus_client import REGISTRY

from tests.support.api import API, People, Person

pytestmark = pytest.mark.asyncio(loop_scope="session")


def counted(operation: str, what: str) -> float:
    return REGISTRY.get_sample_value(f"postgres_operation_{what}_total", {"operation": operation}) or 0.0


async def test_a_list_counts_its_statement_and_rows(client: httpx.AsyncClient, people: People, owner: Person) -> None:
    await people.own_items(owner, 7)
    statements, rows = counted("equipment.page", "statements"), counted("equipment.page", "rows")
    assert len((await client.get(f"{API}/equipment?limit=7")).json()["items"]) == 7
    assert counted("equipment.page", "statements") == statements + 1
    assert counted("equipment.page", "rows") - rows in (7, 8)  # one more tells whether there is a next page
    assert counted("equipment.page", "seconds") > 0


async def test_credentials_that_are_not_good_are_counted(anonymous: httpx.AsyncClient) -> None:
    def refused(kind: str) -> float:
        labels = {"kind": kind, "reason": "invalid"}
        return REGISTRY.get_sample_value("credentials_refused_total", labels) or 0.0

    before = refused("token")
    answer = await anonymous.get(f"{API}/equipment", headers={"Authorization": "Bearer nonsense"})
    assert answer.status_code == httpx.codes.UNAUTHORIZED
    assert refused("token") == before + 1


async def test_a_write_counts_too(client: httpx.AsyncClient) -> None:
    before = counted("equipment.add", "rows")
    item = {"asset_tag": "COUNTED", "name": "One", "category": "camera"}
    assert (await client.post(f"{API}/equipment", json=item)).status_code == httpx.codes.CREATED
    assert counted("equipment.add", "rows") == before + 1
