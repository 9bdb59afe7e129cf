"""Equipment over HTTP."""

from dataclasses import replace
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import TypeAdapter

from app.dependencies import ReadSession, Resources, WriteSession, caller_with
from app.features.equipment import service
from app.features.equipment.expansions import expand, needed
from app.features.equipment.repository import LISTING, EquipmentRepository
from app.features.equipment.schemas import FIELDS, EquipmentIn, EquipmentOut, EquipmentPatch, EquipmentQuery
from app.platform.cache import cached
from app.platform.errors import NotFound, VersionConflict
from app.platform.http.conditional import json_response, last_modified, require_if_match
from app.platform.http.fields import FieldParams
from app.platform.http.idempotency import IdempotentRoute
from app.platform.http.pages import Page
from app.platform.http.pagination import link_header
from app.platform.http.problems import PreconditionRequired, problem_responses
from app.platform.limits import limiter
from app.platform.resilience.overload import criticality
from app.platform.security.caller import Caller

router = APIRouter(prefix="/equipment", tags=["equipment"], route_class=IdempotentRoute)
Reader = Annotated[Caller, caller_with("equipment:read")]
Writer = Annotated[Caller, caller_with("equipment:write")]
IfMatch = Annotated[str | None, Header(description="The ETag that you read")]
ITEM = TypeAdapter(EquipmentOut)
PAGE = TypeAdapter(Page[EquipmentOut])


@router.get("", response_model=Page[EquipmentOut], responses=problem_responses())
@limiter.limit("100/second;3000/minute")
@cached(ttl_seconds=30, tags=("equipment", "checkouts"))
@criticality(sheddable_with="total=exact")
async def list_equipment(
    request: Request, query: Annotated[EquipmentQuery, Query()], caller: Reader, session: ReadSession, parts: Resources
) -> Response:
    """Equipment by page, filtered, with the fields you ask for."""
    selection = FIELDS.select(query)
    window = parts.cursors.window(LISTING, query, scope=caller.organization_id)
    repository = EquipmentRepository(session, caller.organization_id)
    page = await repository.page(query, needed(selection), window)
    page = replace(page, items=await expand(session, caller, page.items, selection))
    return json_response(request, PAGE, page.body(), headers=link_header(request.url, page))


@router.post("", status_code=201, response_model=EquipmentOut, responses=problem_responses(service.AssetTagTaken))
async def create_equipment(request: Request, body: EquipmentIn, caller: Writer, session: WriteSession) -> Response:
    """Add an item."""
    item = await service.create(session, caller, body)
    location = {"Location": f"/api/v1/equipment/{item['id']}"}
    return json_response(request, ITEM, item, version=item["version"], status=201, headers=location)


@router.get("/{equipment_id}", response_model=EquipmentOut, responses=problem_responses(NotFound))
@limiter.limit("100/second;3000/minute")
@cached(ttl_seconds=30, tags=("equipment", "checkouts"), stale_seconds=30, negative_seconds=10)
async def get_equipment(
    request: Request,
    equipment_id: UUID,
    query: Annotated[FieldParams, Query()],
    caller: Reader,
    session: ReadSession,
) -> Response:
    """One item, with the fields and relations you ask for."""
    selection = FIELDS.select(query)
    row = await service.get(session, caller, equipment_id, (*needed(selection), "version", "updated_at"))
    [item] = await expand(session, caller, [row], selection)
    modified = {"Last-Modified": last_modified(row["updated_at"])}
    return json_response(request, ITEM, item, version=row["version"], headers=modified)


@router.patch(
    "/{equipment_id}",
    response_model=EquipmentOut,
    responses=problem_responses(
        NotFound, service.AssetTagTaken, service.CheckedOut, VersionConflict, PreconditionRequired
    ),
)
async def change_equipment(
    request: Request,
    equipment_id: UUID,
    body: EquipmentPatch,
    caller: Writer,
    session: WriteSession,
    if_match: IfMatch = None,
) -> Response:
    """Change some fields of an item, if it is still as you read it."""
    item = await service.change(session, caller, equipment_id, body, partial(require_if_match, if_match))
    return json_response(request, ITEM, item, version=item["version"])


@router.delete(
    "/{equipment_id}",
    status_code=204,
    responses=problem_responses(NotFound, service.CheckedOut, VersionConflict),
)
async def delete_equipment(equipment_id: UUID, caller: Writer, session: WriteSession, if_match: IfMatch = None) -> None:
    """Remove an item and its history; with `If-Match`, only if it is still as you read it."""
    await service.remove(session, caller, equipment_id, partial(require_if_match, if_match or "*"))
