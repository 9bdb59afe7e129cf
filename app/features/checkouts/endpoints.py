"""Checkouts over HTTP."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from app.dependencies import ReadSession, Resources, WriteSession, caller_with
from app.features.checkouts import service
from app.features.checkouts.repository import LISTING, CheckoutRepository
from app.features.checkouts.schemas import (
    FIELDS,
    CheckoutIn,
    CheckoutOut,
    CheckoutsQuery,
    EquipmentCheckoutsQuery,
    ReturnIn,
)
from app.features.equipment import service as equipment
from app.platform.cache import cached
from app.platform.errors import NotFound
from app.platform.http.conditional import json_response
from app.platform.http.fields import FieldParams
from app.platform.http.idempotency import IdempotentRoute
from app.platform.http.pages import Page
from app.platform.http.pagination import link_header
from app.platform.http.problems import problem_responses
from app.platform.limits import limiter
from app.platform.postgres import ReadSession as ReadSessionType
from app.platform.resilience.overload import criticality
from app.platform.security.caller import Caller
from app.resources import Resources as ResourcesType

router = APIRouter(tags=["checkouts"], route_class=IdempotentRoute)
Reader = Annotated[Caller, caller_with("checkouts:read")]
Writer = Annotated[Caller, caller_with("checkouts:write")]
CHECKOUT = TypeAdapter(CheckoutOut)
PAGE = TypeAdapter(Page[CheckoutOut])


@router.get("/checkouts", response_model=Page[CheckoutOut], responses=problem_responses())
@limiter.limit("100/second;3000/minute")
@cached(ttl_seconds=30, tags=("checkouts",))
@criticality(sheddable_with="total=exact")
async def list_checkouts(
    request: Request, query: Annotated[CheckoutsQuery, Query()], caller: Reader, session: ReadSession, parts: Resources
) -> Response:
    """Checkouts by page, the newest first."""
    return await _page(request, query, caller, session, parts)


@router.get(
    "/equipment/{equipment_id}/checkouts", response_model=Page[CheckoutOut], responses=problem_responses(NotFound)
)
@limiter.limit("100/second;3000/minute")
@cached(ttl_seconds=30, tags=("equipment", "checkouts"))
@criticality(sheddable_with="total=exact")
async def list_checkouts_of_equipment(
    request: Request,
    equipment_id: UUID,
    query: Annotated[EquipmentCheckoutsQuery, Query()],
    caller: Reader,
    session: ReadSession,
    parts: Resources,
) -> Response:
    """The history of one item, the newest first."""
    await equipment.get(session, caller, equipment_id, ("id",))
    of_item = CheckoutsQuery(**query.model_dump(exclude_unset=True), equipment_id=equipment_id)
    return await _page(request, of_item, caller, session, parts)


@router.post(
    "/equipment/{equipment_id}/checkouts",
    status_code=201,
    response_model=CheckoutOut,
    responses=problem_responses(NotFound, equipment.AlreadyCheckedOut, equipment.NotAvailable),
)
async def check_out(
    equipment_id: UUID, body: CheckoutIn, caller: Writer, session: WriteSession, response: Response
) -> Any:
    """Take an item. Of any number who try at once, one gets it."""
    checkout = await service.check_out(session, caller, equipment_id, body)
    response.headers["Location"] = f"/api/v1/checkouts/{checkout['id']}"
    return checkout


@router.get("/checkouts/{checkout_id}", response_model=CheckoutOut, responses=problem_responses(NotFound))
@limiter.limit("100/second;3000/minute")
@cached(ttl_seconds=30, tags=("checkouts",))
async def get_checkout(
    request: Request, checkout_id: UUID, query: Annotated[FieldParams, Query()], caller: Reader, session: ReadSession
) -> Response:
    """One checkout."""
    fields = FIELDS.select(query).own
    return json_response(request, CHECKOUT, await service.get(session, caller, checkout_id, fields))


@router.post(
    "/checkouts/{checkout_id}/return",
    response_model=CheckoutOut,
    responses=problem_responses(NotFound, service.AlreadyReturned),
)
async def return_checkout(checkout_id: UUID, body: ReturnIn, caller: Writer, session: WriteSession) -> Any:
    """Bring an item back."""
    return await service.give_back(session, caller, checkout_id, body)


async def _page(
    request: Request, query: CheckoutsQuery, caller: Caller, session: ReadSessionType, parts: ResourcesType
) -> Response:
    if query.user_id == "me":
        query = query.model_copy(update={"user_id": str(caller.user_id)})
    window = parts.cursors.window(LISTING, query, scope=caller.organization_id)
    repository = CheckoutRepository(session, caller.organization_id)
    page = await repository.page(query, FIELDS.select(query).own, window)
    return json_response(request, PAGE, page.body(), headers=link_header(request.url, page))
