"""The members of an organization over HTTP."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from app.dependencies import FreshSession, Resources, WriteSession, caller_with
from app.features.organizations import service
from app.features.organizations.repository import LISTING, MemberRepository
from app.features.organizations.schemas import FIELDS, MemberOut, MemberPatch, MembersQuery
from app.platform.errors import NotFound
from app.platform.http.conditional import json_response
from app.platform.http.idempotency import IdempotentRoute
from app.platform.http.pages import Page
from app.platform.http.pagination import link_header
from app.platform.http.problems import problem_responses
from app.platform.security.caller import Caller

router = APIRouter(prefix="/members", tags=["members"], route_class=IdempotentRoute)
Reader = Annotated[Caller, caller_with("members:read")]
Manager = Annotated[Caller, caller_with("members:manage")]
PAGE = TypeAdapter(Page[MemberOut])


@router.get("", response_model=Page[MemberOut], responses=problem_responses())
async def list_members(
    request: Request, query: Annotated[MembersQuery, Query()], caller: Reader, session: FreshSession, parts: Resources
) -> Response:
    """The people of your organization, in the order in which they came."""
    window = parts.cursors.window(LISTING, query, scope=caller.organization_id)
    repository = MemberRepository(session, caller.organization_id)
    page = await repository.page(query, FIELDS.select(query).own, window)
    return json_response(request, PAGE, page.body(), headers=link_header(request.url, page))


@router.patch("/{user_id}", response_model=MemberOut, responses=problem_responses(NotFound, service.LastOwner))
async def change_member(user_id: UUID, body: MemberPatch, caller: Manager, session: WriteSession) -> Any:
    """Give a member another role, or disable them; what they hold is worth that within a second."""
    return await service.change_member(session, caller, user_id, body)
