"""Invitations over HTTP."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from app.dependencies import FreshSession, Resources, WriteSession, caller_with
from app.features.identity.password_endpoints import refuse_weak
from app.features.identity.password_service import TokenNotGood
from app.features.identity.service import EmailTaken
from app.features.organizations import invitation_service as service
from app.features.organizations.invitation_repository import LISTING, InvitationRepository
from app.features.organizations.invitation_schemas import (
    FIELDS,
    Acceptance,
    InvitationIn,
    InvitationOut,
    InvitationsQuery,
)
from app.features.organizations.schemas import MemberOut
from app.platform.errors import NotFound
from app.platform.http.conditional import json_response
from app.platform.http.idempotency import IdempotentRoute
from app.platform.http.pages import Page
from app.platform.http.pagination import link_header
from app.platform.http.problems import problem_responses
from app.platform.limits import limiter
from app.platform.security.caller import Caller

router = APIRouter(prefix="/invitations", tags=["members"], route_class=IdempotentRoute)
Manager = Annotated[Caller, caller_with("members:manage")]
PAGE = TypeAdapter(Page[InvitationOut])


@router.get("", response_model=Page[InvitationOut], responses=problem_responses())
async def list_invitations(
    request: Request,
    query: Annotated[InvitationsQuery, Query()],
    caller: Manager,
    session: FreshSession,
    parts: Resources,
) -> Response:
    """Who was invited, the newest first."""
    window = parts.cursors.window(LISTING, query, scope=caller.organization_id)
    repository = InvitationRepository(session, caller.organization_id)
    page = await repository.page(query, FIELDS.select(query).own, window)
    return json_response(request, PAGE, page.body(), headers=link_header(request.url, page))


@router.post(
    "",
    status_code=201,
    response_model=InvitationOut,
    responses=problem_responses(service.AlreadyInvited, service.TooManyInvitations),
)
@limiter.limit("30/minute;200/hour", per="user")
async def invite(body: InvitationIn, caller: Manager, session: WriteSession) -> Any:
    """Invite somebody. The mail has a token that is good once, for seven days; this answer has not."""
    return await service.invite(session, caller, body)


@router.post(
    "/accept", status_code=201, response_model=MemberOut, responses=problem_responses(TokenNotGood, EmailTaken)
)
@limiter.limit("10/minute", per="address")
async def accept(body: Acceptance, parts: Resources, session: WriteSession) -> Any:
    """Join, by the token from the mail."""
    token, password = body.token.get_secret_value(), body.password.get_secret_value()
    async with parts.database.read(fresh=True) as reading:
        email = await service.invited(reading, token)
    if email is not None:
        await refuse_weak(parts, "password", password, email, body.full_name)
    return await service.accept(session, token, body.full_name, await parts.passwords.hash(password))


# An id alone: `accept` is none, and has no DELETE.
@router.delete("/{invitation_id:uuid}", status_code=204, responses=problem_responses(NotFound))
async def revoke_invitation(invitation_id: UUID, caller: Manager, session: WriteSession) -> None:
    """Take an invitation back: its token is no good any more."""
    await service.revoke(session, caller, invitation_id)
