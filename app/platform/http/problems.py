"""Errors as RFC 9457 problems (`application/problem+json`): the one shape in which anything goes wrong on the wire.

A problem names what is wrong in bounded space and never echoes values that the client sent.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from http.client import responses
from typing import Any, TypedDict
from urllib.parse import quote

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from app.platform import errors as domain
from app.platform.telemetry import context

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
MAX_TEXT = 500  # characters of a detail or a message
MAX_NAME = 64  # characters of one step of a location: an unknown field is named by the client
MAX_DEPTH = 12  # steps of a location
MAX_INSTANCE = 200  # characters of the path

UNREADABLE_BODY = "There was an error parsing the body"  # FastAPI's words for whatever went wrong while it read

# The problem types that draft-ietf-httpapi-ratelimit-headers-11 (section 10.2) registers; all others are our own.
REGISTRY = "https://iana.org/assignments/http-problem-types"
REGISTERED = frozenset({"quota-exceeded", "temporary-reduced-capacity", "abnormal-usage-detected"})

BEARER_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class FieldError(TypedDict):
    """Where and what: `loc` as pydantic has it, `["body", "tags", 3]`."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(Exception):
    """Raised anywhere above the services, answered as such. A subclass is a problem type; its docstring explains it."""

    status = 500
    slug: str | None = None  # stable, part of the type's URI; None: the status says all (`about:blank`)
    title = "The request failed"

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Sequence[FieldError] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        self.members: dict[str, Any] = {}  # what its type adds to the body (RFC 9457, section 3.2)


class BadRequest(Problem):
    """The request could not be read at all: its JSON, its form or its framing is broken."""

    status = 400
    slug = "malformed-request"
    title = "The request is malformed"


class MethodNotAllowed(Problem):
    """The path exists; it does not answer to this method. `Allow` lists those that it answers to."""

    status = 405
    slug = "method-not-allowed"
    title = "Method not allowed"


class BodyTooLarge(Problem):
    """The body is larger than this service reads."""

    status = 413
    slug = "body-too-large"
    title = "The body is too large"


class UnsupportedMediaType(Problem):
    """The `Content-Type` of the body is not one that this operation reads, or the body is compressed."""

    status = 415
    slug = "unsupported-media-type"
    title = "Unsupported media type"


class InvalidRequest(Problem):
    """The request was read and something in it is not valid; `errors` says where and what."""

    status = 422
    slug = "validation-failed"
    title = "The request is not valid"

    @classmethod
    def at(cls, loc: Sequence[str | int], msg: str, type: str) -> "InvalidRequest":
        """The problem of a single place, e.g. `at(("query", "sort"), "unknown sort key", "sort_unknown")`."""
        return cls(errors=[FieldError(loc=list(loc), msg=msg, type=type)])


class PreconditionRequired(Problem):
    """The operation changes something that others may have changed: send `If-Match` with the ETag that you read."""

    status = 428
    slug = "precondition-required"
    title = "If-Match is required"


class TooManyRequests(Problem):
    """More of these requests are under way than one caller may have. `Retry-After` says when to come back."""

    status = 429
    slug = "rate-limited"
    title = "Too many requests"


class InternalError(Problem):
    """Our fault; it was logged under the request id."""

    status = 500
    slug = "internal-server-error"
    title = "Internal server error"


class ServiceUnavailable(Problem):
    """Nothing is wrong with the request; the service can't carry it out now. `Retry-After` says when to come back."""

    status = 503
    slug = "service-unavailable"
    title = "Service unavailable"

    def __init__(self, detail: str | None = None, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_seconds)})


class Overloaded(ServiceUnavailable):
    """The service has more to do than it can; the request was not looked at. `Retry-After` says when to come back."""

    slug = "overloaded"
    title = "The service is overloaded"


class DeadlineExceeded(Problem):
    """The deadline passed before the answer was ready. A write may or may not have happened."""

    status = 504
    slug = "deadline-exceeded"
    title = "The deadline passed"


Kind = type[Problem] | type[domain.DomainError]
Translate = Callable[[Any], Problem]

DOMAIN_STATUS: dict[type[domain.DomainError], int] = {
    domain.Unauthenticated: 401,
    domain.Forbidden: 403,
    domain.NotFound: 404,
    domain.Conflict: 409,
    domain.VersionConflict: 412,
    domain.DomainError: 400,
}

KIND_BY_STATUS: dict[int, Kind] = {status: kind for kind, status in DOMAIN_STATUS.items()} | {
    kind.status: kind
    for kind in (
        BadRequest,
        MethodNotAllowed,
        BodyTooLarge,
        UnsupportedMediaType,
        InvalidRequest,
        PreconditionRequired,
        TooManyRequests,
        InternalError,
        ServiceUnavailable,
        DeadlineExceeded,
    )
}


def status_of(kind: Kind) -> int:
    if issubclass(kind, Problem):
        return kind.status
    return next(DOMAIN_STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in DOMAIN_STATUS)


def problem_type(slug: str | None) -> str:
    if slug in REGISTERED:
        return f"{REGISTRY}#{slug}"
    return "about:blank" if slug is None else f"/problems/{slug}"


# On the wire


class FieldErrorDetails(BaseModel):
    loc: list[str | int] = Field(max_length=MAX_DEPTH, examples=[["query", "limit"]])
    msg: str
    type: str


class ProblemDetails(BaseModel):
    """RFC 9457, with the request id to quote when asking for help."""

    type: str = Field(json_schema_extra={"format": "uri-reference"}, examples=["/problems/not-found"])
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="what is wrong with this request; the title, where that says all")
    instance: str = Field(json_schema_extra={"format": "uri-reference"}, description="the path of the request")
    request_id: str


class ValidationProblemDetails(ProblemDetails):
    errors: list[FieldErrorDetails] = Field(
        default=[], max_length=MAX_ERRORS, description=f"the first {MAX_ERRORS} things that are wrong"
    )


class LimitProblemDetails(ProblemDetails):
    violated_policies: list[str] = Field(
        default=[], alias="violated-policies", description="of RateLimit-Policy, where the rate limit is used up"
    )


DETAILS_BY_STATUS: dict[int, type[ProblemDetails]] = {422: ValidationProblemDetails, 429: LimitProblemDetails}


def problem_response(problem: Problem, path: str) -> Response:
    content: dict[str, Any] = {
        "type": problem_type(problem.slug),
        "title": problem.title,
        "status": problem.status,
        "detail": _printable(problem.detail or problem.title, MAX_TEXT),
        "instance": quote(path[:MAX_INSTANCE], errors="replace"),
        "request_id": context.current().request_id,
        **problem.members,
    }
    if problem.errors:
        content["errors"] = [_bounded(error) for error in problem.errors[:MAX_ERRORS]]
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(orjson.dumps(content), problem.status, headers, media_type=MEDIA_TYPE)


async def send_problem(send: Send, problem: Problem, path: str) -> None:
    """Answer from an ASGI middleware, before any response has started."""
    response = problem_response(problem, path)
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body})


def _bounded(error: FieldError) -> FieldError:
    loc = [_printable(step, MAX_NAME) if isinstance(step, str) else step for step in error["loc"][:MAX_DEPTH]]
    return FieldError(loc=loc, msg=_printable(error["msg"], MAX_TEXT), type=error["type"])


def _printable(text: str, limit: int) -> str:
    """Cut to the limit, without control characters and without lone surrogates, which UTF-8 can't carry."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


# From exceptions


def problem_of(error: Exception) -> Problem:
    """The problem that says what an exception of the framework, or of a domain rule, means."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, domain.DomainError):
        return _problem(type(error), error.detail)
    if isinstance(error, RequestValidationError):
        return _validation_problem(error)
    if isinstance(error, HTTPException):
        return _http_problem(error)
    return InternalError()


def _problem(kind: Kind, detail: str | None, headers: Mapping[str, str] | None = None) -> Problem:
    problem = Problem(detail, headers=headers)
    problem.status, problem.slug, problem.title = status_of(kind), kind.slug, kind.title
    if problem.status == HTTPStatus.UNAUTHORIZED:
        problem.headers = BEARER_CHALLENGE | problem.headers
    return problem


def _http_problem(error: HTTPException) -> Problem:
    # FastAPI wraps whatever is raised while it reads the body in a 400 that doesn't tell what happened.
    if isinstance(error.__cause__, Problem):
        return error.__cause__
    if error.detail == UNREADABLE_BODY:
        return BadRequest(_unreadable_body(error.__cause__))
    phrase = responses.get(error.status_code, "Error")
    detail = error.detail if error.detail != phrase else None
    kind = KIND_BY_STATUS.get(error.status_code)
    if kind is not None:
        return _problem(kind, detail, error.headers)
    problem = Problem(detail, headers=error.headers)
    problem.status, problem.title = error.status_code, phrase
    return problem


def _unreadable_body(cause: BaseException | None) -> str:
    if isinstance(cause, RecursionError):
        return "The JSON of the body is nested too deeply."
    if isinstance(cause, UnicodeDecodeError):
        return f"The body is not UTF-8 at byte {cause.start}."
    if isinstance(cause, ValueError):
        return "The JSON of the body holds a number with too many digits."
    return "The body can't be read."


def _validation_problem(error: RequestValidationError) -> Problem:
    if _unread_media_type(error.body):
        return UnsupportedMediaType("The Content-Type of the body is missing, or not one that is read here.")
    found = error.errors()
    first = found[0]
    if first["type"] == "json_invalid":
        return BadRequest(f"The body is not valid JSON: {first['ctx']['error']} at character {first['loc'][1]}.")
    detail = f"{len(found)} things are wrong; the first {MAX_ERRORS} are listed." if len(found) > MAX_ERRORS else None
    return InvalidRequest(detail, errors=[_field_error(each) for each in found[:MAX_ERRORS]])


def _unread_media_type(body: Any) -> bool:
    # FastAPI leaves a body as bytes when its Content-Type isn't JSON, and a form that is none empty.
    return isinstance(body, bytes) or (isinstance(body, FormData) and not body)


def _field_error(error: Mapping[str, Any]) -> FieldError:
    return FieldError(loc=list(error["loc"]), msg=error["msg"].removeprefix("Value error, "), type=error["type"])


Handler = Callable[[Request, Exception], Awaitable[Response]]


def install_problem_handlers(app: FastAPI, translations: Mapping[type[Exception], Translate] | None = None) -> None:
    """Make every error that leaves an endpoint a problem.

    `translations` says what the exceptions of other rooms mean, e.g. `{PoolTimeout: lambda _: ServiceUnavailable()}`.
    """

    for kind in (Problem, domain.DomainError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _handler(problem_of))
    for exception, translate in (translations or {}).items():
        app.add_exception_handler(exception, _handler(translate))


def _handler(translate: Translate) -> Handler:
    async def handle(request: Request, error: Exception) -> Response:
        problem = translate(error)
        if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
            problem.headers["Allow"] = _allowed_methods(request)
        return problem_response(problem, request.scope["path"])

    return handle


def _allowed_methods(request: Request) -> str:
    """Of all routes of the path; Starlette's own `Allow` has those of the first alone."""
    path = request.scope["path"]
    routes = [route for route in iter_route_contexts(request.app.routes) if route.path_regex.match(path)]
    # As in an OpenAPI document: a path that is spelled out goes before a template that it would fit.
    matching = [route.methods or () for route in [route for route in routes if route.path == path] or routes]
    allowed = {method for methods in matching for method in methods}
    return ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))  # HeadMiddleware


# In the OpenAPI document


def problem_responses(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of an endpoint or a router: one entry per status, naming all its problem types."""
    titles: dict[int, list[str]] = {}
    for kind in kinds:
        titles.setdefault(status_of(kind), []).append(f"{kind.title} (`{problem_type(kind.slug)}`)")
    return {status: documented(status, "; or: ".join(each)) for status, each in titles.items()}


def documented(status: int, description: str) -> dict[str, Any]:
    """The OpenAPI response object of a problem; `openapi.customize_openapi` adds the schema it points to."""
    model = DETAILS_BY_STATUS.get(status, ProblemDetails)
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}
