"""`POST /batch`: several requests in one, side by side, each with its own caller check, limits, status and headers.

A part is a request to the ASGI app below the outer request's context: what holds for a request holds for a part.
"""

from asyncio import Semaphore
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator
from starlette.types import ASGIApp

from app.platform.http.parts import Budget, run_parts
from app.platform.http.problems import BadRequest, InvalidRequest
from app.platform.resilience.overload import Criticality, criticality

MAX_URL = 2_048  # characters
SETTABLE = frozenset({"accept-language", "idempotency-key", "if-match", "if-none-match", "x-consistency-token"})


def refuse_foreign_url(url: str) -> str:
    if not url.isascii() or not url.isprintable() or any(char in url for char in " #\\"):
        raise ValueError("must be a path with its query, percent-encoded")
    if "%00" in url or not unquote(url.partition("?")[0]).isprintable():
        raise ValueError("must not contain control characters")
    return url


def refuse_unknown_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if name.lower() not in SETTABLE:
            raise ValueError(f"only these can be set: {', '.join(sorted(SETTABLE))}; the rest is inherited")
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"{name.lower()} must be printable ASCII")
    return headers


HeaderValue = Annotated[str, Field(max_length=2_048)]


class BatchPart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Names the part in the answer")]
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    url: Annotated[
        str, Field(max_length=MAX_URL, examples=["/api/v1/equipment?limit=5"]), AfterValidator(refuse_foreign_url)
    ]
    headers: Annotated[dict[str, HeaderValue], Field(max_length=8), AfterValidator(refuse_unknown_headers)] = {}
    body: Annotated[Any, Field(description="JSON")] = None

    @property
    def path(self) -> str:
        return unquote(self.url.partition("?")[0])


class BatchIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    requests: Sequence[BatchPart]

    @model_validator(mode="after")
    def refuse_equal_ids(self) -> Self:
        if len({part.id for part in self.requests}) < len(self.requests):
            raise ValueError("the ids of the requests must differ")
        return self


class BatchAnswer(BaseModel):
    id: str
    status: Annotated[int, Field(ge=100, le=599)]
    headers: dict[str, str]
    body: Annotated[Any, Field(description="JSON; null where there is none")]


class BatchOut(BaseModel):
    responses: list[BatchAnswer]


def batch_router(
    get_app: Callable[[Request], ASGIApp], *, prefix: str, max_requests: int, max_response_bytes: int, max_at_once: int
) -> APIRouter:
    """`POST /batch` for paths below `prefix` (`/api/v1/`), run by the ASGI app that `get_app` gives.

    `max_at_once`: parts that run at once, of all batches of the process together.
    """
    # A batch is one request to the gate of overload. That its parts don't take what all others need is seen to here.
    places = Semaphore(max_at_once)
    router = APIRouter(tags=["batch"])
    parts = Annotated[list[BatchPart], Field(min_length=1, max_length=max_requests)]
    body_type = create_model("BatchIn", __base__=BatchIn, requests=(parts, ...))

    @router.post("/batch", response_model=BatchOut)
    @criticality(Criticality.SHEDDABLE)
    async def batch(request: Request, body: body_type) -> Response:
        """Several requests in one. They run side by side, in no order; one that fails leaves the others."""
        if "idempotency-key" in request.headers:
            raise BadRequest("A batch is not repeated as a whole: give an Idempotency-Key to each part that writes.")
        requests: Sequence[BatchPart] = body.requests
        for index, part in enumerate(requests):
            _refuse_path(part.path, index, prefix, own_path=request.scope["path"])
        answers = await run_parts(get_app(request), request.scope, requests, Budget(max_response_bytes), places)
        return Response(orjson.dumps({"responses": answers}), media_type="application/json")

    return router


def _refuse_path(path: str, index: int, prefix: str, own_path: str) -> None:
    loc = ("body", "requests", index, "url")
    if not path.startswith(prefix):
        raise InvalidRequest.at(loc, f"must begin with {prefix}", "batch_url")
    if path.rstrip("/") == own_path.rstrip("/"):
        raise InvalidRequest.at(loc, "a batch can't hold a batch", "batch_nested")
