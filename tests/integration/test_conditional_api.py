"""ETag, 304, If-Match: nobody is sent what they have, and nobody overwrites what they have not seen."""

import asyncio
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from tests.support.api import API
from tests.support.calls import CHECKOUTS, EQUIPMENT, add_item, body_of, check_out, get_item, problem_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

WRITERS = 20


async def read(client: httpx.AsyncClient, path: str, **headers: str) -> httpx.Response:
    return await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def item_path(client: httpx.AsyncClient) -> str:
    return f"{EQUIPMENT}/{(await add_item(client))['id']}"


async def rename(client: httpx.AsyncClient, path: str, if_match: str, name: str = "New") -> httpx.Response:
    return await client.patch(path, json={"name": name}, headers={"If-Match": if_match})


# Readers


@pytest.mark.parametrize("path", [EQUIPMENT, CHECKOUTS, f"{API}/analytics/equipment"])
async def test_what_is_read_has_a_strong_etag_and_is_private(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.headers["etag"].startswith('"')
    assert answer.headers["cache-control"].startswith("private")


@pytest.mark.parametrize("form", ["{}", "W/{}", '"a", {}', "*", '  {} , "b"', '"a,b",W/{}'])
async def test_who_has_it_is_not_sent_it_again(client: httpx.AsyncClient, form: str) -> None:
    path = await item_path(client)
    for _ in range(2):  # made, then from the cache
        first = await read(client, path)
        again = await read(client, path, If_None_Match=form.format(first.headers["etag"]))
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["cache-control"] == first.headers["cache-control"]


async def test_the_first_answer_can_be_a_304_too(client: httpx.AsyncClient, viewer: httpx.AsyncClient) -> None:
    path = await item_path(client)
    etag = (await read(client, path)).headers["etag"]
    again = await read(viewer, path, If_None_Match=etag)
    assert (again.status_code, again.headers["x-cache"]) == (304, "miss")
    assert body_of(await read(viewer, path))["name"] == "A camera"


async def test_who_has_another_state_is_sent_the_present_one(client: httpx.AsyncClient) -> None:
    path = await item_path(client)
    before = (await read(client, path)).headers["etag"]
    body_of(await rename(client, path, before))
    after = await read(client, path, If_None_Match=before)
    assert body_of(after)["name"] == "New"
    assert after.headers["etag"] != before


async def test_another_selection_of_fields_is_another_representation(client: httpx.AsyncClient) -> None:
    path = await item_path(client)
    whole = (await read(client, path)).headers["etag"]
    some = await read(client, f"{path}?fields=name", If_None_Match=whole)
    assert some.status_code == 200
    assert some.headers["etag"] != whole


async def test_a_list_changes_its_tag_when_a_row_does(client: httpx.AsyncClient) -> None:
    path = await item_path(client)
    before = (await read(client, EQUIPMENT)).headers["etag"]
    assert (await read(client, EQUIPMENT, If_None_Match=before)).status_code == 304
    body_of(await rename(client, path, "*"))
    assert (await read(client, EQUIPMENT, If_None_Match=before)).status_code == 200


async def test_a_checkout_changes_the_tag_of_an_item_that_shows_it(client: httpx.AsyncClient) -> None:
    path = await item_path(client)
    shown = f"{path}?expand=current_checkout&fields=name"
    before = (await read(client, shown)).headers["etag"]
    await check_out(client, path.rpartition("/")[2])
    assert (await read(client, shown, If_None_Match=before)).status_code == 200


async def test_last_modified_is_when_it_was_changed(client: httpx.AsyncClient) -> None:
    answer = await read(client, await item_path(client))
    modified = parsedate_to_datetime(answer.headers["last-modified"])
    assert modified.isoformat() == answer.json()["updated_at"][:19] + "+00:00"


async def test_an_error_has_no_tag(client: httpx.AsyncClient) -> None:
    answer = await read(client, f"{EQUIPMENT}/01890000-0000-7000-8000-000000000000", If_None_Match="*")
    problem_of(answer, 404)
    assert "etag" not in answer.headers


# Writers


async def test_a_change_has_to_say_what_it_changes(client: httpx.AsyncClient) -> None:
    path = await item_path(client)
    answer = await client.patch(path, json={"name": "New"})
    problem = problem_of(answer, 428, "precondition-required")
    assert "If-Match" in problem["detail"]


@pytest.mark.parametrize("form", ["{}", "W/{}", '"7-x", {}', "*"])
async def test_a_change_to_what_was_read_is_made(client: httpx.AsyncClient, form: str) -> None:
    path = await item_path(client)
    etag = (await read(client, path)).headers["etag"]
    answer = await rename(client, path, form.format(etag))
    assert body_of(answer)["version"] == 2
    assert answer.headers["etag"] == (await read(client, path)).headers["etag"]


@pytest.mark.parametrize("query", ["?fields=name", "?expand=checkouts"])
async def test_the_tag_of_any_representation_names_the_version(client: httpx.AsyncClient, query: str) -> None:
    path = await item_path(client)
    etag = (await read(client, path + query)).headers["etag"]
    body_of(await rename(client, path, etag))


@pytest.mark.parametrize("form", ["{}", "W/{}", '"7-x", {}'])
async def test_a_change_to_what_has_changed_is_refused(client: httpx.AsyncClient, form: str) -> None:
    path = await item_path(client)
    etag = (await read(client, path)).headers["etag"]
    body_of(await rename(client, path, etag, "First"))
    problem_of(await rename(client, path, form.format(etag), "Second"), 412, "precondition-failed")
    assert (await read(client, path)).json()["name"] == "First"


async def test_a_checkout_counts_as_a_change(client: httpx.AsyncClient) -> None:
    path = await item_path(client)
    etag = (await read(client, path)).headers["etag"]
    await check_out(client, path.rpartition("/")[2])
    problem_of(await rename(client, path, etag), 412, "precondition-failed")


async def test_a_deletion_may_say_what_it_deletes(client: httpx.AsyncClient) -> None:
    path = await item_path(client)
    etag = (await read(client, path)).headers["etag"]
    body_of(await rename(client, path, etag))
    problem_of(await client.delete(path, headers={"If-Match": etag}), 412, "precondition-failed")
    now = (await read(client, path)).headers["etag"]
    assert (await client.delete(path, headers={"If-Match": now})).status_code == 204


async def test_what_is_not_there_matches_nothing(client: httpx.AsyncClient) -> None:
    problem_of(await rename(client, f"{EQUIPMENT}/01890000-0000-7000-8000-000000000000", "*"), 404, "not-found")


async def together(client: httpx.AsyncClient, path: str, if_match: str) -> list[int]:
    answers = await asyncio.gather(*(rename(client, path, if_match, f"Writer {n}") for n in range(WRITERS)))
    return sorted(answer.status_code for answer in answers)


@pytest.mark.parametrize("form", ["{}", "W/{}"])
async def test_of_many_writers_with_one_version_one_wins(remote: httpx.AsyncClient, form: str) -> None:
    path = await item_path(remote)
    etag = (await read(remote, path)).headers["etag"]
    assert await together(remote, path, form.format(etag)) == [200] + [412] * (WRITERS - 1)
    assert (await get_item(remote, path.rpartition("/")[2]))["version"] == 2


async def test_control_writers_who_take_any_version_overwrite_each_other(remote: httpx.AsyncClient) -> None:
    path = await item_path(remote)
    assert await together(remote, path, "*") == [200] * WRITERS


async def test_counting_up_by_reading_and_writing_loses_nothing(remote: httpx.AsyncClient) -> None:
    """Each reads, adds one, and tries again when another was faster."""
    path = await item_path(remote)

    async def add_one() -> None:
        while True:
            answer = await read(remote, path)
            count: dict[str, Any] = {"count": answer.json()["attributes"].get("count", 0) + 1}
            headers = {"If-Match": answer.headers["etag"]}
            written = await remote.patch(path, json={"attributes": count}, headers=headers)
            if written.status_code == 200:
                return
            problem_of(written, 412)

    await asyncio.gather(*(add_one() for _ in range(8)))
    assert (await read(remote, path)).json()["attributes"] == {"count": 8}
