"""Completes the OpenAPI document with what every operation has in common, so that no endpoint repeats it."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from app.platform import errors as domain
from app.platform.http import limit_problems, problems

Schema = dict[str, Any]

ANYWHERE = (
    problems.InvalidRequest,
    limit_problems.QuotaExceeded,
    limit_problems.ReducedCapacity,
    limit_problems.AbnormalUsage,
    problems.TooManyRequests,
    problems.InternalError,
    problems.ServiceUnavailable,
    problems.DeadlineExceeded,
)
WITH_BODY = (problems.BadRequest, problems.BodyTooLarge, problems.UnsupportedMediaType)
WITH_SECURITY = (domain.Unauthenticated, domain.Forbidden)
WITH_PATH_PARAMETERS = (domain.NotFound,)

METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
SAFE_METHODS = frozenset({"get", "head"})

INTEGER = {"type": "integer", "minimum": 0}
STRING = {"type": "string"}
HEADERS: Schema = {
    "X-Request-ID": {"description": "Names the request in the logs", "schema": STRING},
    "RateLimit": {
        "description": "What is left of the rate limit (draft-ietf-httpapi-ratelimit-headers)",
        "schema": STRING,
    },
    "RateLimit-Policy": {"description": "The rate limits that apply", "schema": STRING},
    "Retry-After": {"description": "Seconds to wait", "schema": INTEGER},
    "WWW-Authenticate": {"description": "How to authenticate (RFC 6750)", "schema": STRING},
    "ETag": {"description": "Names this representation (RFC 9110)", "schema": STRING},
    "Cache-Control": {"schema": STRING},
    "Age": {"description": "Seconds since a cached answer was made", "schema": INTEGER},
    "Idempotency-Replayed": {
        "description": "The request was carried out before; this is the answer that it got then",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "X-Cache": {"description": "Whether a cache answered", "schema": STRING},
    "X-Consistency-Token": {
        "description": "Send it with later reads: they will be no older than this write",
        "schema": STRING,
    },
}
ON_STATUS = {
    "401": ("WWW-Authenticate",),
    "429": ("RateLimit", "RateLimit-Policy", "Retry-After"),
    "503": ("Retry-After",),
}
ON_READ = ("ETag", "Cache-Control", "Age", "X-Cache", "RateLimit", "RateLimit-Policy")
ON_WRITE = ("Idempotency-Replayed", "X-Consistency-Token", "RateLimit", "RateLimit-Policy")

IF_NONE_MATCH: Schema = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The ETag that you have; 304 if it is still current",
    "schema": STRING,
}
NOT_MODIFIED: Schema = {"description": "You have the current representation"}
TEMPLATE = "#/components/schemas/{model}"


def customize_openapi(app: FastAPI) -> None:
    """Wrap `app.openapi`; the document is completed once, when it is first asked for."""
    generate = app.openapi

    def openapi() -> Schema:
        if app.openapi_schema is None:
            complete(generate())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def complete(document: Schema) -> None:
    """Add the common responses, headers and schemas to a document of FastAPI's, in place."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.update(_problem_schemas())
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["headers"] = HEADERS
    components.setdefault("parameters", {})["IfNoneMatch"] = IF_NONE_MATCH
    for path, method, operation in _operations(document):
        _complete_responses(operation, path)
        if method in SAFE_METHODS:
            _complete_read(operation)
        for status, response in operation["responses"].items():
            response.setdefault("headers", {}).update(_headers(method, status))


def _operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    for path, item in document["paths"].items():
        yield from ((path, method, operation) for method, operation in item.items() if method in METHODS)


def _complete_responses(operation: Schema, path: str) -> None:
    kinds: list[problems.Kind] = [*ANYWHERE]
    if "requestBody" in operation:
        kinds += WITH_BODY
    if "security" in operation:
        kinds += WITH_SECURITY
    if "{" in path:
        kinds += WITH_PATH_PARAMETERS
    responses = operation["responses"]
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]  # FastAPI's own, which is not a problem
    for status, response in problems.problem_responses(*kinds).items():
        responses.setdefault(str(status), response)


def _complete_read(operation: Schema) -> None:
    operation["responses"].setdefault("304", dict(NOT_MODIFIED))
    operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/IfNoneMatch"})


def _headers(method: str, status: str) -> Schema:
    succeeded = ON_READ if method in SAFE_METHODS else ON_WRITE
    names = ("X-Request-ID", *(succeeded if status.startswith("2") else ON_STATUS.get(status, ())))
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _problem_schemas() -> Schema:
    schemas: Schema = {}
    models: list[type[BaseModel]] = [problems.ProblemDetails, *problems.DETAILS_BY_STATUS.values()]
    for model in models:
        schema = model.model_json_schema(ref_template=TEMPLATE, mode="serialization")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    return schemas
