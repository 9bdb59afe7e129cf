"""The service does what its OpenAPI document says, found out through a real server; and the document says enough."""

import asyncio
import re
from typing import Any
from uuid import uuid4

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from app.main import create_app
from app.platform.http.problems import problem_type
from app.settings import Settings
from tests.support.api import API, People
from tests.support.calls import wrong_places

EXAMPLES = 25  # of each operation

document = create_app(Settings(_env_file=None)).openapi()
schema = schemathesis.openapi.from_dict(document)
OPERATIONS = [
    (method, path, operation)
    for path, methods in document["paths"].items()
    for method, operation in methods.items()
    if "operationId" in operation
]
ANYBODY = ("register", "login", "token", "refresh", "verify-email", "verify-email/request", "password-reset")
WITHOUT_TOKEN = {f"{API}/auth/{path}" for path in (*ANYBODY, "password-reset/confirm")} | {
    f"{API}/batch",
    f"{API}/invitations/accept",
}
every_operation = pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)

every_question = pytest.mark.parametrize("path", [path for method, path, _ in OPERATIONS if method == "get"])


@pytest.fixture
def token(people: People) -> str:
    """Of somebody new for each operation: some of them end sessions."""
    return asyncio.run(people.join()).token


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_service_does_what_its_document_says(case: schemathesis.Case, server_url: str, token: str) -> None:
    # A schema can't tell all that is wrong: which fields are known, which cursor is ours, which If-Match is current.
    case.call_and_validate(
        base_url=server_url,
        headers={"Authorization": f"Bearer {token}"},
        excluded_checks=[positive_data_acceptance],
    )


def test_every_feature_is_told() -> None:
    told = {(method.upper(), path.removeprefix(API)) for method, path, _ in OPERATIONS}
    assert told == {
        ("POST", "/auth/register"),
        ("POST", "/auth/login"),
        ("POST", "/auth/token"),
        ("GET", "/auth/me"),
        ("POST", "/auth/verify-email"),
        ("POST", "/auth/verify-email/request"),
        ("POST", "/auth/password-reset"),
        ("POST", "/auth/password-reset/confirm"),
        ("POST", "/auth/password"),
        ("POST", "/auth/2fa/setup"),
        ("POST", "/auth/2fa/enable"),
        ("POST", "/auth/2fa/disable"),
        ("POST", "/auth/2fa/recovery-codes"),
        ("POST", "/auth/refresh"),
        ("POST", "/auth/logout"),
        ("GET", "/auth/sessions"),
        ("DELETE", "/auth/sessions"),
        ("DELETE", "/auth/sessions/{session_id}"),
        ("GET", "/equipment"),
        ("POST", "/equipment"),
        ("GET", "/equipment/{equipment_id}"),
        ("PATCH", "/equipment/{equipment_id}"),
        ("DELETE", "/equipment/{equipment_id}"),
        ("GET", "/equipment/{equipment_id}/checkouts"),
        ("POST", "/equipment/{equipment_id}/checkouts"),
        ("GET", "/checkouts"),
        ("GET", "/checkouts/{checkout_id}"),
        ("POST", "/checkouts/{checkout_id}/return"),
        ("GET", "/analytics/equipment"),
        ("GET", "/audit"),
        ("GET", "/api-keys"),
        ("POST", "/api-keys"),
        ("POST", "/api-keys/{api_key_id}/rotate"),
        ("DELETE", "/api-keys/{api_key_id}"),
        ("GET", "/members"),
        ("GET", "/invitations"),
        ("POST", "/invitations"),
        ("POST", "/invitations/accept"),
        ("DELETE", "/invitations/{invitation_id}"),
        ("PATCH", "/members/{user_id}"),
        ("POST", "/batch"),
    }


@every_operation
def test_every_operation_tells_its_errors_as_problems(method: str, path: str, operation: dict[str, Any]) -> None:
    errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
    assert set(errors) >= {"422", "429", "500", "503", "504"}
    for answer in errors.values():
        [(media_type, content)] = answer["content"].items()
        assert media_type == "application/problem+json"
        assert content["schema"]["$ref"].endswith("ProblemDetails")


@every_operation
def test_every_operation_says_who_may_and_where_it_belongs(method: str, path: str, operation: dict[str, Any]) -> None:
    assert len(operation["tags"]) == 1
    assert operation["description"]
    assert (path in WITHOUT_TOKEN) == ("security" not in operation)
    if path not in WITHOUT_TOKEN:
        assert set(operation["responses"]) >= {"401", "403"}


@every_operation
def test_every_operation_names_what_it_answers(method: str, path: str, operation: dict[str, Any]) -> None:
    [(status, success)] = [each for each in operation["responses"].items() if each[0].startswith("2")]
    if status not in ("202", "204"):
        assert success["content"]["application/json"]["schema"]
    assert "X-Request-ID" in success["headers"]


@every_operation
def test_bodies_and_queries_refuse_what_they_dont_know(method: str, path: str, operation: dict[str, Any]) -> None:
    content = operation.get("requestBody", {}).get("content", {})
    for media_type, body in content.items():
        if media_type == "application/json":
            schema = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
            assert schema["additionalProperties"] is False


@every_question
def test_a_question_refuses_a_parameter_that_it_does_not_know(path: str, server_url: str, token: str) -> None:
    concrete = re.sub(r"\{\w+\}", str(uuid4()), path)
    answer = httpx.get(f"{server_url}{concrete}?unheard_of=1", headers={"Authorization": f"Bearer {token}"})
    assert wrong_places(answer) == [["query", "unheard_of"]]


@every_question
def test_what_has_items_is_a_page(path: str) -> None:
    answer = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    schema = document["components"]["schemas"][answer["$ref"].rpartition("/")[2]]
    if schema["properties"].get("items", {}).get("type") == "array":
        assert set(schema["required"]) >= {"items", "next_cursor", "prev_cursor"}


def test_the_statuses_of_a_checkout() -> None:
    take = document["paths"][f"{API}/equipment/{{equipment_id}}/checkouts"]["post"]["responses"]
    assert set(take) == {
        *("201", "400", "401", "403", "404", "409", "413", "415", "422", "429", "500", "503", "504"),
    }
    assert "/problems/already-checked-out" in take["409"]["description"]


def test_the_document_and_its_page_are_served(server_url: str) -> None:
    with httpx.Client(base_url=server_url) as client:
        assert client.get("/openapi.json").json() == document
        page = client.get("/docs")
    assert page.status_code == 200
    assert "swagger-ui" in page.text
    assert "/openapi.json" in page.text


def test_the_page_can_log_in(server_url: str) -> None:
    [scheme] = document["components"]["securitySchemes"].values()
    assert scheme["flows"]["password"]["tokenUrl"] == f"{API}/auth/token"
    used = {
        scope
        for *_, operation in OPERATIONS
        for each in operation.get("security", [])
        for scopes in each.values()
        for scope in scopes
    }
    assert used == set(scheme["flows"]["password"]["scopes"])


@pytest.mark.parametrize(
    "slug", ["not-found", "validation-failed", "already-checked-out", "rate-limited", "quota-exceeded"]
)
def test_the_type_of_a_problem_leads_to_its_explanation(server_url: str, slug: str) -> None:
    answer = httpx.get(f"{server_url}/problems/{slug}")
    assert answer.json()["type"] == problem_type(slug)
