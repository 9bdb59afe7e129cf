"""Whatever is sent, the answer is a problem that names what is wrong, and never a 5xx."""

import json
from typing import Any

import httpx
import pytest

from tests.support.api import API
from tests.support.calls import CHECKOUTS, DUE, EQUIPMENT, add_item, body_of, item_body, problem_of, wrong_places

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = {"Content-Type": "application/json"}
REGISTRATION = {"email": "new@example.com", "password": "0123456789", "full_name": "N", "organization": "O"}


async def send(client: httpx.AsyncClient, content: bytes | str, content_type: str = "application/json") -> Any:
    return await client.post(EQUIPMENT, content=content, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    "content",
    ["{", "[1,", '{"a":', "nul", "'a'", '{"a":1}{"b":2}', '{"a":01}', '{"a":"\n"}', '{"asset_tag": "a",}'],
)
async def test_broken_json_is_malformed_and_says_where(client: httpx.AsyncClient, content: str) -> None:
    problem = problem_of(await send(client, content), 400, "malformed-request")
    assert "JSON" in problem["detail"]


async def test_json_that_is_not_utf8_is_malformed(client: httpx.AsyncClient) -> None:
    problem = problem_of(await send(client, b'{"asset_tag": "\xff\xfe"}'), 400, "malformed-request")
    assert "UTF-8" in problem["detail"]


@pytest.mark.parametrize("opening", ['{"attributes":', "["])
@pytest.mark.parametrize("depth", [2_000, 50_000])
async def test_deep_json_is_malformed(client: httpx.AsyncClient, opening: str, depth: int) -> None:
    closing = "}" if opening.startswith("{") else "]"
    problem = problem_of(await send(client, opening * depth + "1" + closing * depth), 400, "malformed-request")
    assert "deep" in problem["detail"]


async def test_attributes_nested_beyond_their_bound_are_named(client: httpx.AsyncClient) -> None:
    nested: Any = 1
    for _ in range(20):
        nested = {"a": nested}
    answer = await client.post(EQUIPMENT, json=item_body(attributes=nested))
    assert wrong_places(answer) == [["body", "attributes"]]


@pytest.mark.parametrize("content", ["[]", "1", '"text"', "null", "true", ""])
async def test_a_body_that_is_no_object_is_refused(client: httpx.AsyncClient, content: str) -> None:
    assert wrong_places(await send(client, content)) == [["body"]]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("asset_tag", 1),
        ("asset_tag", None),
        ("asset_tag", ""),
        ("asset_tag", "   "),
        ("asset_tag", "x" * 65),
        ("asset_tag", "a\nb"),
        ("name", ["x"]),
        ("name", "x" * 201),
        ("category", {}),
        ("status", "checked_out"),
        ("status", "AVAILABLE"),
        ("status", 1),
        ("tags", "4k"),
        ("tags", {"a": 1}),
        ("tags", [str(number) for number in range(21)]),
        ("description", "x" * 10_001),
        ("attributes", []),
        ("attributes", {"a": 2**53}),
        ("attributes", {"x" * 65: 1}),
        ("attributes", {str(number): number for number in range(501)}),
        ("purchase_price", 12.5),
        ("purchase_price", "-1"),
        ("purchase_price", "1e3"),
        ("purchase_price", "1.234"),
        ("purchase_price", "NaN"),
        ("purchase_price", "Infinity"),
        ("purchase_price", "9" * 13),
        ("purchase_price", "9" * 100_000),
        ("purchase_price", "١٢"),
        ("id", "01890000-0000-7000-8000-000000000000"),
        ("version", 7),
        ("organization_id", "01890000-0000-7000-8000-000000000000"),
        ("unknown", 1),
    ],
)
async def test_a_wrong_field_is_named(client: httpx.AsyncClient, field: str, value: Any) -> None:
    assert wrong_places(await client.post(EQUIPMENT, json=item_body(**{field: value}))) == [["body", field]]


async def test_missing_fields_are_all_named(client: httpx.AsyncClient) -> None:
    places = wrong_places(await client.post(EQUIPMENT, json={}))
    assert places == [["body", "asset_tag"], ["body", "name"], ["body", "category"]]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1e101", "9007199254740992"])
async def test_absurd_numbers_in_attributes_are_named(client: httpx.AsyncClient, number: str) -> None:
    content = json.dumps(item_body(attributes={"n": 0})).replace(": 0}", f": {number}}}")
    assert wrong_places(await send(client, content)) == [["body", "attributes"]]


async def test_a_number_of_too_many_digits_is_malformed(client: httpx.AsyncClient) -> None:
    content = json.dumps(item_body(attributes={"n": 0})).replace(": 0}", f": {'9' * 5_000}}}")
    assert "digits" in problem_of(await send(client, content), 400, "malformed-request")["detail"]


async def test_ten_thousand_tags_are_refused_without_naming_each(client: httpx.AsyncClient) -> None:
    answer = await client.post(EQUIPMENT, json=item_body(tags=["t"] * 10_000))
    assert wrong_places(answer) == [["body", "tags"]]
    assert len(answer.content) < 1_000


async def test_ten_thousand_wrong_tags_are_refused_without_naming_each(client: httpx.AsyncClient) -> None:
    answer = await client.post(EQUIPMENT, json=item_body(tags=list(range(10_000))))
    assert len(wrong_places(answer)) <= 20
    assert len(answer.content) < 5_000


async def test_ten_thousand_unknown_fields_are_counted_and_the_first_named(client: httpx.AsyncClient) -> None:
    answer = await client.post(EQUIPMENT, json=item_body(**{f"x{number}": 1 for number in range(9_000)}))
    assert len(wrong_places(answer)) == 20
    assert "9000" in answer.json()["detail"]


async def test_a_body_of_too_many_values_is_too_large(client: httpx.AsyncClient) -> None:
    problem_of(await send(client, "[" + "1," * 100_000 + "1]"), 413, "body-too-large")


async def test_a_body_that_says_it_is_too_large_is_refused_unread(client: httpx.AsyncClient) -> None:
    problem = problem_of(await send(client, b"x" * 1_048_577), 413, "body-too-large")
    assert "1048576" in problem["detail"]


async def test_a_body_of_unknown_length_is_refused_where_it_goes_over(client: httpx.AsyncClient) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 65_536

    answer = await client.post(EQUIPMENT, content=chunks(), headers=JSON)
    problem_of(answer, 413, "body-too-large")


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "x"])
async def test_another_content_type_is_unsupported(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await send(client, json.dumps(item_body()), content_type)
    problem_of(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"])
async def test_json_by_another_name_is_read(client: httpx.AsyncClient, content_type: str) -> None:
    body_of(await send(client, json.dumps(item_body()), content_type), 201)


# NUL, and what else JSON can hold and Postgres can't


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "\ud800", "a\udfffb"])
@pytest.mark.parametrize("field", ["asset_tag", "name", "category", "location", "description"])
async def test_unstorable_text_is_named(client: httpx.AsyncClient, field: str, text: str) -> None:
    answer = await send(client, json.dumps(item_body(**{field: text})))
    assert wrong_places(answer) == [["body", field]]


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
async def test_unstorable_text_inside_is_named(client: httpx.AsyncClient, text: str) -> None:
    tags = await send(client, json.dumps(item_body(tags=["ok", text])))
    assert wrong_places(tags) == [["body", "tags", 1]]
    for attributes in ({"a": text}, {text: 1}, {"a": [{"b": text}]}):
        answer = await send(client, json.dumps(item_body(attributes=attributes)))
        assert wrong_places(answer) == [["body", "attributes"]]


@pytest.mark.parametrize("field", ["email", "password", "full_name", "organization"])
@pytest.mark.parametrize("text", ["0123456789\x00", "0123456789\ud800"])
async def test_unstorable_text_in_a_registration_is_named(anonymous: httpx.AsyncClient, field: str, text: str) -> None:
    content = json.dumps(REGISTRATION | {field: text})
    answer = await anonymous.post(f"{API}/auth/register", content=content, headers=JSON)
    assert wrong_places(answer) == [["body", field]]


@pytest.mark.parametrize("path", ["auth/login", "auth/token"])
async def test_unstorable_text_in_credentials_is_named(anonymous: httpx.AsyncClient, path: str) -> None:
    if path == "auth/login":
        answer = await anonymous.post(f"{API}/{path}", json={"email": "a@example.com", "password": "a\x00"})
    else:
        answer = await anonymous.post(f"{API}/{path}", data={"username": "a@example.com", "password": "a\x00"})
    assert wrong_places(answer) == [["body", "password"]]


@pytest.mark.parametrize("name", ["category", "location", "tag", "q", "status", "fields", "sort", "cursor", "unknown"])
async def test_nul_in_a_query_is_refused(client: httpx.AsyncClient, name: str) -> None:
    assert wrong_places(await client.get(f"{EQUIPMENT}?{name}=a%00b")) == [["query"]]


@pytest.mark.parametrize("path", [f"{EQUIPMENT}/%00", f"{EQUIPMENT}/a%00/checkouts", f"{API}/%00", "/%00"])
async def test_nul_in_a_path_is_refused(client: httpx.AsyncClient, path: str) -> None:
    assert wrong_places(await client.get(path)) == [["path"]]


# Query strings and paths


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.0", "limit"),
        ("limit=1_0", "limit"),
        ("limit=%2B1", "limit"),
        ("limit=%201", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999999999", "limit"),
        (f"limit={'9' * 5_000}", "limit"),
        ("limit=1e400", "limit"),
        ("limit=NaN", "limit"),
        ("page=0", "page"),
        ("page=201", "page"),
        ("page=1.0", "page"),
        ("sort=price", "sort"),
        ("sort=--name", "sort"),
        ("sort=name,id", "sort"),
        ("sort=", "sort"),
        ("sort=-", "sort"),
        ("sort=" + "x" * 65, "sort"),
        ("status=lost", "status"),
        ("total=all", "total"),
        ("updated_since=yesterday", "updated_since"),
        ("updated_since=2026-01-31", "updated_since"),
        ("updated_since=2026-01-31T12:00:00", "updated_since"),
        ("updated_since=1767225600", "updated_since"),
        ("updated_since=0000-01-01T00:00:00Z", "updated_since"),
        ("updated_since=0001-01-01T00:00:00%2B14:00", "updated_since"),
        ("updated_since=9999-12-31T23:59:59-14:00", "updated_since"),
        ("updated_since=10000-01-01T00:00:00Z", "updated_since"),
        ("updated_since=2026-02-30T00:00:00Z", "updated_since"),
        ("q=", "q"),
        ("q=" + "x" * 201, "q"),
        ("category=" + "x" * 101, "category"),
        ("category=%0A", "category"),
        ("fields=", "fields"),
        ("fields=name,", "fields"),
        ("fields=password_hash", "fields"),
        ("fields=checkouts.equipment_id.id", "fields"),
        ("fields=organization_id", "fields"),
        ("fields=search", "fields"),
        ("fields=" + ",".join("a" * 3 for _ in range(100)), "fields"),
        ("fields=" + "x" * 1_025, "fields"),
        ("expand=user", "expand"),
        ("expand=", "expand"),
        ("cursor=", "cursor"),
        ("cursor=x", "cursor"),
        ("cursor=%C3%A4%C3%B6", "cursor"),
        ("cursor=" + "A" * 2_049, "cursor"),
        ("unknown=1", "unknown"),
        ("LIMIT=1", "LIMIT"),
        ("limit[]=1", "limit[]"),
    ],
)
async def test_a_wrong_parameter_is_named(client: httpx.AsyncClient, query: str, name: str) -> None:
    assert wrong_places(await client.get(f"{EQUIPMENT}?{query}")) == [["query", name]]


async def test_too_many_tags_in_a_query_are_named(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{EQUIPMENT}?{'&'.join(['tag=a'] * 11)}")
    assert wrong_places(answer) == [["query", "tag"]]


async def test_a_query_of_too_many_bytes_is_refused(client: httpx.AsyncClient) -> None:
    assert wrong_places(await client.get(f"{EQUIPMENT}?{'&'.join(['tag=a'] * 2_000)}")) == [["query"]]


@pytest.mark.parametrize(
    "query", ["limit=1&limit=x", "limit=x&limit=1", "sort=name&sort=nope", "status=lost&status=lost"]
)
async def test_a_repeated_parameter_never_fails_in_the_service(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"{EQUIPMENT}?{query}")
    assert answer.status_code in (200, 422)


@pytest.mark.parametrize("query", ["%", "%zz", "q=%ff%fe", "q=%ed%a0%80", "&&&", "=", "=1", "q=a;b", "q=%E2%80%AE"])
async def test_odd_query_strings_never_fail_in_the_service(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"{EQUIPMENT}?{query}")
    assert answer.status_code in (200, 422)


@pytest.mark.parametrize(
    "q",
    ["'", "''", "\\", "a'b", "a\\", ":*", "&", "|", "!", "<->", "a:b", "(", "%", "_", "ﬀ", "İ", "e\u0301", "\u200b"],
)
async def test_no_search_text_fails_in_the_service(client: httpx.AsyncClient, q: str) -> None:
    body_of(await client.get(EQUIPMENT, params={"q": q}))


@pytest.mark.parametrize("id_", ["1", "null", "x" * 5_000, "{}", "0" * 32 + "g", "%E2%80%AE"])
async def test_an_id_that_is_none_is_named(client: httpx.AsyncClient, id_: str) -> None:
    assert wrong_places(await client.get(f"{EQUIPMENT}/{id_}")) == [["path", "equipment_id"]]


@pytest.mark.parametrize("path", ["/nope", f"{API}", f"{API}/equipment/", f"{API}//equipment", "/api/v2/equipment"])
async def test_an_unknown_path_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    problem_of(await client.get(path), 404, "not-found")


@pytest.mark.parametrize("method", ["PUT", "TRACE", "OPTIONS", "PROPFIND", "X" * 100])
async def test_another_method_is_not_allowed(client: httpx.AsyncClient, method: str) -> None:
    answer = await client.request(method, EQUIPMENT)
    problem_of(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_a_path_that_is_spelled_out_doesnt_allow_what_a_template_would(client: httpx.AsyncClient) -> None:
    answer = await client.put(f"{API}/invitations/accept")
    problem_of(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


# Times


@pytest.mark.parametrize(
    "due_at",
    [
        "tomorrow",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-02-30T12:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "9999-12-31T23:59:59.999999Z",
        "2026-01-31T12:00:00+99:99",
        "2026-01-31T25:00:00Z",
        1767225600,
        1e400,
        None,
        [],
    ],
)
async def test_a_time_that_is_none_is_named(client: httpx.AsyncClient, due_at: Any) -> None:
    item = await add_item(client)
    content = json.dumps({"due_at": due_at})
    answer = await client.post(f"{EQUIPMENT}/{item['id']}/checkouts", content=content, headers=JSON)
    assert wrong_places(answer) == [["body", "due_at"]]


@pytest.mark.parametrize(
    ("due_at", "stored"),
    [
        ("0001-01-01T00:00:01Z", "0001-01-01T00:00:01Z"),
        ("0001-01-01T14:00:01+14:00", "0001-01-01T00:00:01Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ("9999-12-31T09:59:59-14:00", "9999-12-31T23:59:59Z"),
    ],
)
async def test_times_at_the_edge_survive(client: httpx.AsyncClient, due_at: str, stored: str) -> None:
    item = await add_item(client)
    answer = await client.post(f"{EQUIPMENT}/{item['id']}/checkouts", json={"due_at": due_at})
    checkout = body_of(answer, 201)
    assert checkout["due_at"] == stored
    listing = await client.get(CHECKOUTS, params={"sort": "due_at", "limit": 1})
    assert body_of(listing)["items"][0]["due_at"] == stored


# Cursors that hold such times, and headers


async def test_a_cursor_at_the_edge_of_time_works(client: httpx.AsyncClient) -> None:
    for due_at in ("0001-01-01T00:00:01Z", "9999-12-31T23:59:59.999998Z", DUE):
        item = await add_item(client)
        body_of(await client.post(f"{EQUIPMENT}/{item['id']}/checkouts", json={"due_at": due_at}), 201)
    for sort in ("due_at", "-due_at"):
        first = body_of(await client.get(CHECKOUTS, params={"sort": sort, "limit": 1}))
        second = body_of(await client.get(CHECKOUTS, params={"sort": sort, "limit": 1, "cursor": first["next_cursor"]}))
        assert second["items"][0]["due_at"] == DUE


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer " + "x" * 60_000},
        {"Authorization": "Basic eA=="},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer a.b.c"},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
async def test_odd_credentials_are_no_credentials(anonymous: httpx.AsyncClient, headers: dict[str, Any]) -> None:
    answer = await anonymous.get(EQUIPMENT, headers=headers)
    problem_of(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Request-ID": "x" * 10_000},
        {"X-Request-ID": b"\xff\n"},
        {"X-Consistency-Token": "x" * 10_000},
        {"X-Consistency-Token": b"\xff" * 43},
        {"X-Request-Timeout-Ms": "9" * 100},
        {"X-Request-Timeout-Ms": "-1"},
        {"X-Request-Timeout-Ms": "NaN"},
        {"X-Request-Timeout-Ms": b"\xb2\xb3"},
        {"traceparent": "00-x-y-z"},
        {"If-None-Match": '"' * 60_000},
        {"If-None-Match": b"\xff\xfe"},
        {"If-Modified-Since": "yesterday"},
        {"Range": "bytes=5-1"},
        {"Content-Length": "-5"},
        {"Accept": "application/xml;q=x"},
        {"Host": "\x7f"},
    ],
)
async def test_odd_headers_are_passed_over(client: httpx.AsyncClient, headers: dict[str, Any]) -> None:
    body_of(await client.get(EQUIPMENT, headers=headers))


@pytest.mark.parametrize(
    "if_match", ["", "x", '"', '"x', "W/", ",", '"0"', '"99999999999999999999999"', '"-1"', "x" * 60_000]
)
async def test_an_if_match_that_names_no_version_doesnt_match(client: httpx.AsyncClient, if_match: str) -> None:
    item = await add_item(client)
    answer = await client.patch(f"{EQUIPMENT}/{item['id']}", json={"name": "B"}, headers={"If-Match": if_match})
    problem_of(answer, 412, "precondition-failed")


@pytest.mark.parametrize("field", ["asset_tag", "name", "category", "location", "tags", "description", "attributes"])
async def test_null_is_no_value_for_what_has_to_be_there(client: httpx.AsyncClient, field: str) -> None:
    item = await add_item(client)
    answer = await client.patch(f"{EQUIPMENT}/{item['id']}", json={field: None}, headers={"If-Match": "*"})
    assert wrong_places(answer) == [["body", field]]


async def test_a_problem_does_not_repeat_what_was_sent(client: httpx.AsyncClient) -> None:
    secret = "sw0rdfish"
    answer = await client.post(EQUIPMENT, json=item_body(status=secret, unknown=secret))
    problem_of(answer, 422)
    assert secret not in answer.text


async def test_a_password_is_not_repeated(anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.post(f"{API}/auth/register", json=REGISTRATION | {"password": "sw0rdfish"})
    assert wrong_places(answer) == [["body", "password"]]
    assert "sw0rdfish" not in answer.text
