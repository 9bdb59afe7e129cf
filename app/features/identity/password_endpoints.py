"""Addresses verified; passwords lost, found and changed."""

from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from app.dependencies import Caller, Resources, WriteSession
from app.features.identity import attempts
from app.features.identity import password_service as service
from app.features.identity.schemas import Address, EmailVerification, PasswordChange, PasswordReset, Token
from app.features.identity.second_factor_service import CodeNeeded, WrongCode
from app.features.identity.service import WrongCredentials, confirmed
from app.features.identity.session_endpoints import client_of, revealed, second_factors_of, sessions_of, tokens_for
from app.platform.http.idempotency import IdempotentRoute
from app.platform.http.problems import InvalidRequest, problem_responses
from app.platform.limits import limiter
from app.resources import Resources as ResourcesType

router = APIRouter(prefix="/auth", tags=["passwords"], route_class=IdempotentRoute)


async def refuse_weak(parts: ResourcesType, field: str, password: str, *about: str) -> None:
    """Raises `InvalidRequest` at the field."""
    if reason := await parts.password_policy.weakness(password, *about):
        raise InvalidRequest.at(("body", field), reason, "password_weak")


@router.post("/verify-email", status_code=204, responses=problem_responses(service.TokenNotGood))
@limiter.limit("20/minute", per="address")
async def verify_email(body: EmailVerification, session: WriteSession) -> None:
    """Show, by the token from the mail, that the address is yours."""
    await service.verify_email(session, body.token.get_secret_value())


@router.post("/verify-email/request", status_code=202)
@limiter.limit("5/minute;20/hour", per="address")
async def request_verification(body: Address, session: WriteSession) -> None:
    """Have the mail sent again. The answer is the same whether or not there is an account."""
    await service.order_verification(session, body.email)


@router.post("/password-reset", status_code=202)
@limiter.limit("5/minute;20/hour", per="address")
async def request_reset(body: Address, session: WriteSession) -> None:
    """Have a token for a new password sent. The answer is the same whether or not there is an account."""
    await service.order_reset(session, body.email)


@router.post("/password-reset/confirm", status_code=204, responses=problem_responses(service.TokenNotGood))
@limiter.limit("10/minute", per="address")
async def confirm_reset(body: PasswordReset, parts: Resources, session: WriteSession) -> None:
    """Set a new password, by the token from the mail. Every session ends."""
    token, password = body.token.get_secret_value(), body.password.get_secret_value()
    async with parts.database.read(fresh=True) as reading:
        user = await service.reset_owner(reading, token)
    if user is not None:
        await refuse_weak(parts, "password", password, user["email"], user["full_name"])
    await service.reset(session, token, await parts.passwords.hash(password))


@router.post("/password", responses=problem_responses(WrongCredentials, CodeNeeded, WrongCode))
@limiter.limit("10/minute", per="user")
async def change_password(
    body: Annotated[PasswordChange, Body()], request: Request, response: Response, caller: Caller, parts: Resources
) -> Token:
    """Change the password. Every session ends; the answer begins a new one."""
    await attempts.admit_code(parts.rate_limiter, caller.user_id)
    async with parts.database.read(fresh=True) as reading:
        user = await confirmed(reading, caller, body.password.get_secret_value(), parts.passwords)
    password = body.new_password.get_secret_value()
    await refuse_weak(parts, "new_password", password, user["email"], user["full_name"])
    password_hash = await parts.passwords.hash(password)
    async with parts.database.write() as session:
        await second_factors_of(parts).check(session, caller.user_id, revealed(body.otp))
        await service.change(session, user, password_hash)
        changed = await service.account(session, user["id"])
        refresh = await sessions_of(parts).open(session, changed, client_of(request))
    return tokens_for(changed, refresh, parts, response, by_cookie=False)
