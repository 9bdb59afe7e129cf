"""Signing up, logging in, and who am I."""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response

from app.dependencies import Caller, FreshSession, Resources, WriteSession
from app.features.identity import attempts, password_service, service
from app.features.identity.password_endpoints import refuse_weak
from app.features.identity.schemas import Credentials, PasswordGrant, Registration, Token, UserOut
from app.features.identity.second_factor_service import CodeNeeded, WrongCode
from app.features.identity.session_endpoints import client_of, revealed, second_factors_of, sessions_of, tokens_for
from app.platform.http.idempotency import IdempotentRoute
from app.platform.http.problems import problem_responses
from app.platform.http.queries import NoQuery
from app.platform.limits import limiter
from app.platform.resilience.overload import Criticality, criticality
from app.platform.telemetry.context import current
from app.resources import Resources as ResourcesType

router = APIRouter(prefix="/auth", tags=["identity"], route_class=IdempotentRoute)

LOGIN_PROBLEMS = (service.WrongCredentials, CodeNeeded, WrongCode)


@router.post("/register", status_code=201, responses=problem_responses(service.EmailTaken))
@limiter.limit("10/minute;100/hour", per="address")
async def register(body: Registration, parts: Resources, session: WriteSession) -> UserOut:
    """Create an organization, and yourself as its owner.

    Where logging in needs a verified address, one that has an account already gets the same answer, and a mail: nobody
    learns who has an account.
    """
    await refuse_weak(parts, "password", body.password.get_secret_value(), body.email, body.full_name)
    # Hashing takes a while and waits its turn: the session has no connection before its first statement.
    password_hash = await parts.passwords.hash(body.password.get_secret_value())
    discreet = parts.verified_email_needed
    return UserOut.model_validate(await service.register(session, body, password_hash, discreet=discreet))


@router.post("/login", responses=problem_responses(*LOGIN_PROBLEMS))
@limiter.limit("20/minute;200/hour", name="login", per="address")
@criticality(Criticality.CRITICAL)
async def login(body: Credentials, request: Request, response: Response, parts: Resources) -> Token:
    """Trade e-mail and password for an access token, and a refresh token to get the next one with."""
    return await _log_in(body, request, response, parts)


@router.post("/token", responses=problem_responses(*LOGIN_PROBLEMS))
@limiter.limit("20/minute;200/hour", name="login", per="address")
@criticality(Criticality.CRITICAL)
async def token(
    form: Annotated[PasswordGrant, Form()], request: Request, response: Response, parts: Resources
) -> Token:
    """The same as an OAuth2 password form, which the button in /docs sends."""
    return await _log_in(
        Credentials(email=form.username, password=form.password, otp=form.otp), request, response, parts
    )


@router.get("/me", responses=problem_responses())
@criticality(Criticality.CRITICAL)
async def me(query: Annotated[NoQuery, Query()], caller: Caller, session: FreshSession) -> UserOut:
    """Who the token speaks for."""
    return UserOut.model_validate(await service.profile(session, caller))


async def _log_in(body: Credentials, request: Request, response: Response, parts: ResourcesType) -> Token:
    await attempts.admit_address(parts.rate_limiter, body.email)
    # No connection is held while Argon2id works.
    async with parts.database.read(fresh=True) as session:
        account = await service.find_account(session, body.email, current().client_address)
    await attempts.admit_stranger(parts.rate_limiter, body.email, account)
    password = body.password.get_secret_value()
    account = await service.authenticate(account, password, parts.passwords)
    if parts.verified_email_needed and account["email_verified_at"] is None:
        parts.reminders.note(body.email)
        raise service.WrongCredentials()
    rehashed = await parts.passwords.hash(password) if parts.passwords.needs_rehash(account["password_hash"]) else None
    async with parts.database.write() as session:
        if rehashed is not None:
            account = await password_service.rehash(session, account, rehashed)
        await second_factors_of(parts).check(session, account["id"], revealed(body.otp))
        refresh = await sessions_of(parts).open(session, account, client_of(request))
    return tokens_for(account, refresh, parts, response, by_cookie=body.cookie)
