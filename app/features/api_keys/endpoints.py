"""API keys over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from app.dependencies import FreshSession, Resources, WriteSession, caller_with
from app.features.api_keys import service
from app.features.api_keys.repository import LISTING, ApiKeyRepository
from app.features.api_keys.schemas import FIELDS, ApiKeyIn, ApiKeyOut, ApiKeysQuery, NewApiKeyOut, RotationIn
from app.platform.errors import NotFound
from app.platform.http.conditional import json_response
from app.platform.http.idempotency import IdempotentRoute
from app.platform.http.pages import Page
from app.platform.http.pagination import link_header
from app.platform.http.problems import problem_responses
from app.platform.limits import limiter
from app.platform.security.caller import Caller

router = APIRouter(prefix="/api-keys", tags=["api keys"], route_class=IdempotentRoute)
Manager = Annotated[Caller, caller_with("api_keys:manage")]
PAGE = TypeAdapter(Page[ApiKeyOut])
NEW_KEY = TypeAdapter(NewApiKeyOut)
NEVER_KEPT = "no-store"  # by no cache, nor under an idempotency key


@router.get("", response_model=Page[ApiKeyOut], responses=problem_responses())
async def list_api_keys(
    request: Request, query: Annotated[ApiKeysQuery, Query()], caller: Manager, session: FreshSession, parts: Resources
) -> Response:
    """Your keys; to administrators, everybody's. The newest first."""
    query = query.model_copy(update={"user_id": service.whose(caller, query.user_id)})
    window = parts.cursors.window(LISTING, query, scope=caller.organization_id)
    repository = ApiKeyRepository(session, caller.organization_id)
    page = await repository.page(query, FIELDS.select(query).own, window)
    return json_response(request, PAGE, page.body(), headers=link_header(request.url, page))


@router.post(
    "",
    status_code=201,
    response_model=NewApiKeyOut,
    responses=problem_responses(service.KeyNameTaken, service.TooManyKeys, service.LifeOutOfRange),
)
@limiter.limit("30/minute")
async def create_api_key(request: Request, body: ApiKeyIn, caller: Manager, session: WriteSession) -> Response:
    """Make a key. It is in this answer, and nowhere else."""
    key = await service.create(session, caller, body)
    return json_response(request, NEW_KEY, key, status=201, cache_control=NEVER_KEPT)


@router.post(
    "/{api_key_id}/rotate",
    status_code=201,
    response_model=NewApiKeyOut,
    responses=problem_responses(NotFound, service.AlreadyRotating),
)
@limiter.limit("30/minute")
async def rotate_api_key(
    request: Request, api_key_id: UUID, body: RotationIn, caller: Manager, session: WriteSession
) -> Response:
    """Make a key's successor; both are good until the overlap is over."""
    key = await service.rotate(session, caller, api_key_id, body.overlap_seconds)
    return json_response(request, NEW_KEY, key, status=201, cache_control=NEVER_KEPT)


@router.delete("/{api_key_id}", status_code=204, responses=problem_responses(NotFound))
async def revoke_api_key(api_key_id: UUID, caller: Manager, session: WriteSession) -> None:
    """End a key; it is refused everywhere within a second."""
    await service.revoke(session, caller, api_key_id)
