"""Staying logged in, and no longer: refresh, log out, and the sessions that there are."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Cookie, Query, Request, Response
from pydantic import SecretStr, TypeAdapter

from app.dependencies import Caller, FreshSession, Resources, WriteSession
from app.features.identity import session_service as service
from app.features.identity.repository import Row
from app.features.identity.schemas import RefreshRequest, SessionOut, Token
from app.features.identity.second_factor_service import SecondFactors
from app.features.identity.service import issue_token
from app.platform.cache import cached
from app.platform.errors import NotFound
from app.platform.http.conditional import json_response
from app.platform.http.idempotency import IdempotentRoute
from app.platform.http.pages import Page
from app.platform.http.problems import problem_responses
from app.platform.http.queries import NoQuery
from app.platform.limits import limiter
from app.platform.resilience.overload import Criticality, criticality
from app.platform.security.refresh_tokens import RefreshToken
from app.platform.telemetry.context import current
from app.resources import Resources as ResourcesType

router = APIRouter(prefix="/auth", tags=["sessions"], route_class=IdempotentRoute)

COOKIE = "__Secure-refresh-token"
COOKIE_PATH = "/api/v1/auth"
LISTED_SECONDS = 30.0  # how late the list may show the end of a session that nobody ended: it was idle, or too old
PAGE = TypeAdapter(Page[SessionOut])
RefreshCookie = Annotated[str | None, Cookie(alias=COOKIE, include_in_schema=False)]


def revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def client_of(request: Request) -> service.Client:
    return service.Client.of(request.headers.get("user-agent"), current().client_address)


def sessions_of(parts: ResourcesType) -> service.Sessions:
    policy = service.SessionPolicy(
        idle=timedelta(seconds=parts.session_limits.idle_seconds),
        absolute=timedelta(seconds=parts.session_limits.absolute_seconds),
        grace=timedelta(seconds=parts.session_limits.grace_seconds),
        most=parts.session_limits.per_user,
    )
    return service.Sessions(parts.refresh_tokens, policy)


def second_factors_of(parts: ResourcesType) -> SecondFactors:
    return SecondFactors(parts.sealer, parts.service_name)


def tokens_for(
    account: Row, refresh: RefreshToken, parts: ResourcesType, response: Response, *, by_cookie: bool
) -> Token:
    """A browser gets the refresh token where its scripts can't read it, and other sites' requests don't bring it."""
    response.headers["Cache-Control"] = "no-store"
    access_token, expires_in = issue_token(account, refresh.session_id, parts.token_issuer)
    text = refresh.text
    if by_cookie:
        lasts = int(parts.session_limits.idle_seconds)
        response.set_cookie(
            COOKIE, text, max_age=lasts, path=COOKIE_PATH, secure=True, httponly=True, samesite="strict"
        )
    return Token(access_token=access_token, expires_in=expires_in, refresh_token=None if by_cookie else text)


def forget_cookie(response: Response) -> None:
    response.delete_cookie(COOKIE, path=COOKIE_PATH, secure=True, httponly=True, samesite="strict")


@router.post("/refresh", responses=problem_responses(service.SessionOver))
@limiter.limit("120/minute", per="address")
@criticality(Criticality.CRITICAL)
async def refresh(
    request: Request,
    response: Response,
    parts: Resources,
    body: RefreshRequest = RefreshRequest(),
    cookie: RefreshCookie = None,
) -> Token:
    """Trade the refresh token, from the body or the cookie, for a new access token and the next refresh token.

    A refresh token is good once. If the answer was lost, send it again within seconds: the next one is the same. One
    that comes later ends the session.
    """
    sent = revealed(body.refresh_token)
    token = parts.refresh_tokens.parse(sent or cookie or "")
    if token is None:
        raise service.SessionOver()
    # Its own transaction, which commits before the answer is decided on: a 401 doesn't undo the end of a session.
    async with parts.database.write() as session:
        renewed = await sessions_of(parts).refresh(session, token, client_of(request))
    if renewed is None:
        raise service.SessionOver()
    return tokens_for(*renewed, parts, response, by_cookie=sent is None)


@router.post("/logout", status_code=204, responses=problem_responses())
async def logout(response: Response, caller: Caller, session: WriteSession) -> None:
    """End the session that the access token belongs to. Its tokens are refused everywhere within a second."""
    forget_cookie(response)
    await service.log_out(session, caller)


@router.get("/sessions", response_model=Page[SessionOut], responses=problem_responses())
@cached(ttl_seconds=LISTED_SECONDS, tags=(service.TAG,), per="session")
async def sessions(
    request: Request, query: Annotated[NoQuery, Query()], caller: Caller, parts: Resources, session: FreshSession
) -> Response:
    """Where you are logged in, the newest first: all of it, on one page."""
    rows = await sessions_of(parts).listed(session, caller)
    items = [SessionOut(**row, current=row["id"] == caller.session_id) for row in rows]
    return json_response(request, PAGE, Page[SessionOut](items=items, next_cursor=None, prev_cursor=None))


@router.delete("/sessions", status_code=204, responses=problem_responses())
async def end_sessions(caller: Caller, session: WriteSession) -> None:
    """Log out everywhere, here as well."""
    await service.end_all(session, caller.organization_id, caller.user_id, "ended by its owner")


@router.delete("/sessions/{session_id}", status_code=204, responses=problem_responses(NotFound))
async def end_session(session_id: UUID, caller: Caller, session: WriteSession) -> None:
    """Log out there."""
    await service.end_one(session, caller, session_id, "ended by its owner")
