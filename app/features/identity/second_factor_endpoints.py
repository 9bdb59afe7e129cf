"""The second factor: set up, enabled, renewed and disabled. What weakens an account takes password and code again."""

from typing import Annotated

from fastapi import APIRouter, Body, Response

from app.dependencies import Caller, Resources, WriteSession
from app.features.identity import attempts
from app.features.identity import second_factor_service as service
from app.features.identity.schemas import Confirmation, FactorSetup, FirstCode, RecoveryCodes
from app.features.identity.service import WrongCredentials, confirmed
from app.features.identity.session_endpoints import revealed, second_factors_of
from app.platform.http.idempotency import IdempotentRoute
from app.platform.http.problems import problem_responses
from app.platform.limits import limiter
from app.platform.security.caller import Caller as CallerType
from app.resources import Resources as ResourcesType

router = APIRouter(prefix="/auth/2fa", tags=["second factor"], route_class=IdempotentRoute)

CONFIRMED = problem_responses(WrongCredentials, service.CodeNeeded, service.WrongCode, service.NoFactor)
Confirmed = Annotated[Confirmation, Body()]


@router.post("/setup", responses=problem_responses(WrongCredentials, service.FactorInUse))
@limiter.limit("10/minute", per="user")
async def set_up(
    body: Confirmed, response: Response, caller: Caller, parts: Resources, session: WriteSession
) -> FactorSetup:
    """A secret for an authenticator app, also as a QR code. Nothing changes until a first code enables it."""
    response.headers["Cache-Control"] = "no-store"
    await attempts.admit_code(parts.rate_limiter, caller.user_id)
    async with parts.database.read(fresh=True) as reading:
        user = await confirmed(reading, caller, body.password.get_secret_value(), parts.passwords)
    setup = await second_factors_of(parts).set_up(session, user)
    return FactorSetup(secret=setup.secret, uri=setup.uri, qr_svg=setup.qr_svg)


@router.post("/enable", responses=problem_responses(service.WrongCode, service.NoFactor))
@limiter.limit("10/minute", per="user")
async def enable(
    body: FirstCode, response: Response, caller: Caller, parts: Resources, session: WriteSession
) -> RecoveryCodes:
    """Enable it by a first code from the app. Keep the recovery codes: each logs in once without the app."""
    response.headers["Cache-Control"] = "no-store"
    await attempts.admit_code(parts.rate_limiter, caller.user_id)
    codes = await second_factors_of(parts).enable(session, caller, body.otp.get_secret_value())
    return RecoveryCodes(recovery_codes=codes)


@router.post("/recovery-codes", responses=CONFIRMED)
@limiter.limit("10/minute", per="user")
async def renew_codes(
    body: Confirmed, response: Response, caller: Caller, parts: Resources, session: WriteSession
) -> RecoveryCodes:
    """New recovery codes; the old ones are void."""
    response.headers["Cache-Control"] = "no-store"
    await confirm(body, caller, parts, session)
    return RecoveryCodes(recovery_codes=await second_factors_of(parts).renew_codes(session, caller))


@router.post("/disable", status_code=204, responses=CONFIRMED)
@limiter.limit("10/minute", per="user")
async def disable(body: Confirmed, caller: Caller, parts: Resources, session: WriteSession) -> None:
    """Log in by password alone again."""
    await confirm(body, caller, parts, session)
    await second_factors_of(parts).disable(session, caller)


async def confirm(body: Confirmation, caller: CallerType, parts: ResourcesType, session: WriteSession) -> None:
    """Password first, before the session has a connection; then the code, which is used up by it."""
    await attempts.admit_code(parts.rate_limiter, caller.user_id)
    async with parts.database.read(fresh=True) as reading:
        await confirmed(reading, caller, body.password.get_secret_value(), parts.passwords)
    await second_factors_of(parts).check(session, caller.user_id, revealed(body.otp))
