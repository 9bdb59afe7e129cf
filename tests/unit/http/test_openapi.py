from typing import Annotated, Any
from uuid import UUID

import pytest
import schemathesis
from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.security import HTTPBearer
from fastapi.testclient import TestClient
from hypothesis import settings
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from schemathesis.specs.openapi.checks import positive_data_acceptance
from sqlalchemy import column
from typing_extensions import TypedDict

from app.platform.errors import Conflict, NotFound, Unauthenticated, VersionConflict
from app.platform.http.batch import batch_router
from app.platform.http.bounds import RequestBoundsMiddleware
from app.platform.http.conditional import json_response, require_if_match
from app.platform.http.fields import FieldParams, Fields
from app.platform.http.openapi import customize_openapi
from app.platform.http.pages import Page
from app.platform.http.pagination import CursorSigner, Listing, ListParams, link_header
from app.platform.http.problems import PreconditionRequired, install_problem_handlers, problem_responses
from app.platform.http.types import JsonObject, Line, Money, Tags, Text, UtcTime


class Out(TypedDict, total=False):
    id: UUID
    name: str
    price: Money | None
    made_at: UtcTime


class In(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[Line, Field(max_length=20)]
    note: Annotated[Text, Field(max_length=20)] = ""
    price: Money | None = None
    made_at: UtcTime | None = None
    tags: Tags = []
    attributes: JsonObject = {}


class Params(ListParams):
    made_since: UtcTime | None = None
    q: Annotated[Line, Field(min_length=1, max_length=10)] | None = None


class Taken(Conflict):
    slug = "taken"
    title = "Taken"


ITEM: Out = {"id": UUID(int=1), "name": "a", "price": None}
FIELDS = Fields(own=("id", "name", "price", "made_at"))
LISTING = Listing("items", {"name": column("name")}, "name", column("id"))
PAGE, ONE = TypeAdapter(Page[Out]), TypeAdapter(Out)


def authenticate(request: Request) -> None:
    if request.headers.get("authorization") != "Bearer x":
        raise Unauthenticated()


def make_app() -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    install_problem_handlers(app)
    customize_openapi(app)
    app.add_middleware(RequestBoundsMiddleware, max_body_bytes=1_000_000)
    secured = [Depends(HTTPBearer(auto_error=False)), Depends(authenticate)]
    cursors = CursorSigner("secret")

    @app.get("/items", response_model=Page[Out], dependencies=secured)
    async def items(request: Request, query: Annotated[Params, Query()]) -> Response:
        FIELDS.select(query)
        page = cursors.window(LISTING, query, scope=None).slice([dict(ITEM)] * (query.limit + 1))
        return json_response(request, PAGE, page.body(), headers=link_header(request.url, page))

    @app.post("/items", response_model=Out, status_code=201, responses=problem_responses(Taken))
    async def add(body: In) -> Any:
        if body.name.startswith("a"):
            raise Taken()
        return {**ITEM, **body.model_dump(include={"name", "price"})}

    @app.get("/items/{item_id}", response_model=Out)
    async def item(request: Request, item_id: UUID, query: Annotated[FieldParams, Query()]) -> Response:
        FIELDS.select(query)
        if item_id.int % 2:
            raise NotFound()
        return json_response(request, ONE, ITEM, version=1)

    @app.delete("/items/{item_id}", status_code=204, responses=problem_responses(VersionConflict, PreconditionRequired))
    async def remove(item_id: UUID, if_match: Annotated[str | None, Header()] = None) -> None:
        require_if_match(if_match, 1)

    app.include_router(
        batch_router(lambda _: app, prefix="/items", max_requests=3, max_response_bytes=100_000, max_at_once=3)
    )
    return app


app = make_app()
document = app.openapi()
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@schema.parametrize()
@settings(max_examples=15, deadline=None)
def test_the_app_does_what_its_document_says(case: schemathesis.Case) -> None:
    # A schema can't tell all that is wrong: which fields are known, how deep JSON may be, which If-Match is current.
    case.call_and_validate(headers={"Authorization": "Bearer x"}, excluded_checks=[positive_data_acceptance])


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, each) for path, item in document["paths"].items() for method, each in item.items()]


@pytest.mark.parametrize(("path", "method", "operation"), operations())
def test_every_error_is_a_problem(path: str, method: str, operation: dict[str, Any]):
    errors = {status: each for status, each in operation["responses"].items() if status >= "400"}
    assert set(errors) >= {"422", "429", "500", "503", "504"}
    assert all(list(each["content"]) == ["application/problem+json"] for each in errors.values())
    assert all("X-Request-ID" in each["headers"] for each in operation["responses"].values())


def statuses(path: str, method: str) -> set[str]:
    return set(document["paths"][path][method]["responses"]) - {"422", "429", "500", "503", "504"}


def test_problems_are_told_where_they_can_happen():
    assert statuses("/items", "get") == {"200", "304", "401", "403"}
    assert statuses("/items", "post") == {"201", "400", "409", "413", "415"}
    assert statuses("/items/{item_id}", "get") == {"200", "304", "404"}
    assert statuses("/items/{item_id}", "delete") == {"204", "404", "412", "428"}


def test_the_schemas_of_problems_are_there_and_those_of_the_framework_are_not():
    schemas = document["components"]["schemas"]
    assert {"ProblemDetails", "ValidationProblemDetails", "FieldErrorDetails"} <= set(schemas)
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)


def test_the_document_is_completed_once():
    assert app.openapi() is document
    parameters = TestClient(app).get("/openapi.json").json()["paths"]["/items"]["get"]["parameters"]
    assert parameters.count({"$ref": "#/components/parameters/IfNoneMatch"}) == 1
