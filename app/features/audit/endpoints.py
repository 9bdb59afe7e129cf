"""The audit log over HTTP: for reading only."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from app.dependencies import ReadSession, Resources, caller_with
from app.features.audit.repository import LISTING, AuditRepository
from app.features.audit.schemas import FIELDS, AuditEntryOut, AuditQuery
from app.platform.http.conditional import json_response
from app.platform.http.pages import Page
from app.platform.http.pagination import link_header
from app.platform.http.problems import problem_responses
from app.platform.limits import limiter
from app.platform.security.caller import Caller

router = APIRouter(prefix="/audit", tags=["audit"])
Auditor = Annotated[Caller, caller_with("audit:read")]
PAGE = TypeAdapter(Page[AuditEntryOut])


@router.get("", response_model=Page[AuditEntryOut], responses=problem_responses())
@limiter.limit("10/second;300/minute")
async def list_audit_entries(
    request: Request, query: Annotated[AuditQuery, Query()], caller: Auditor, session: ReadSession, parts: Resources
) -> Response:
    """Who did what to which, when and from where; the newest first."""
    window = parts.cursors.window(LISTING, query, scope=caller.organization_id)
    repository = AuditRepository(session, caller.organization_id)
    page = await repository.page(query, FIELDS.select(query).own, window)
    return json_response(request, PAGE, page.body(), headers=link_header(request.url, page))
