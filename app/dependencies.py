"""The parts that endpoints ask for, as `Annotated` aliases. Nothing here opens anything: see `resources.py`."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request, Security, params
from fastapi.openapi.models import OAuthFlowPassword, OAuthFlows
from fastapi.security import OAuth2, SecurityScopes

from app.platform.errors import Forbidden, Unauthenticated
from app.platform.http.idempotency import guard, idempotent
from app.platform.http.problems import ServiceUnavailable
from app.platform.postgres import ReadSession as ReadSessionType
from app.platform.postgres import WriteSession as WriteSessionType
from app.platform.security.caller import Caller as CallerType
from app.platform.security.revocation import RevocationsUnknown
from app.platform.security.tokens import InvalidToken
from app.resources import Resources as ResourcesType


def resources_of(request: Request) -> ResourcesType:
    found: ResourcesType = request.app.state.resources
    return found


async def resources(request: Request) -> ResourcesType:
    """Async, though it waits for nothing: FastAPI would send a plain function to a thread, at 50 µs a request."""
    return resources_of(request)


async def read_session(request: Request) -> AsyncIterator[ReadSessionType]:
    async with resources_of(request).database.read() as session:
        yield session


async def fresh_session(request: Request) -> AsyncIterator[ReadSessionType]:
    async with resources_of(request).database.read(fresh=True) as session:
        yield session


@idempotent
async def write_session(request: Request) -> AsyncIterator[WriteSessionType]:
    async with resources_of(request).database.write() as session:
        guard(request, session)
        yield session


# scope="function": the session ends, and a write commits, before the answer goes out. FastAPI's default ends
# it afterwards: the client would have its 201 while the COMMIT can still fail.
ReadSession = Annotated[ReadSessionType, Depends(read_session, scope="function")]
FreshSession = Annotated[ReadSessionType, Depends(fresh_session, scope="function")]
WriteSession = Annotated[WriteSessionType, Depends(write_session, scope="function")]


class CallerScheme(OAuth2):
    """Who sent the request. The gateway has looked at the credentials; what it found out is judged here.

    One object is dependency and OpenAPI security scheme, so that the document can't forget what is enforced.
    Raises `Unauthenticated` without a valid token, `Forbidden` without a scope that the route names, and
    `ServiceUnavailable` while nobody can tell whether the token was revoked.
    """

    async def __call__(self, request: Request, scopes: SecurityScopes) -> CallerType:  # type: ignore[override]
        found: CallerType | InvalidToken | RevocationsUnknown | None = request.scope["state"].get("caller")
        if found is None:
            raise Unauthenticated("Send an access token: Authorization: Bearer <token>.")
        if isinstance(found, InvalidToken):
            raise Unauthenticated(str(found))
        if isinstance(found, RevocationsUnknown):
            raise ServiceUnavailable("Whether the token was revoked can't be found out now.")
        if found.api_key_id is not None and not scopes.scopes:
            raise Forbidden("API keys are for what names a scope; this is for people.")
        if missing := [scope for scope in scopes.scopes if scope not in found.scopes]:
            raise Forbidden(f"The scope {missing[0]} is needed.")
        return found


SCOPES = {
    "equipment:read": "See equipment",
    "equipment:write": "Add, change and remove equipment",
    "checkouts:read": "See who has what",
    "checkouts:write": "Check equipment out and return it",
    "analytics:read": "See the figures",
    "audit:read": "See who did what",
    "members:read": "See the people of the organization",
    "members:manage": "Change their roles, and disable them",
    "api_keys:manage": "Make, rotate and end API keys",
}
caller = CallerScheme(
    flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl="/api/v1/auth/token", scopes=SCOPES)),
    scheme_name="access token",
    description="A JWT from POST /api/v1/auth/login, or an API key from POST /api/v1/api-keys",
)


def caller_with(*scopes: str) -> params.Security:
    """The caller, who has to hold all of these scopes."""
    required: params.Security = Security(caller, scopes=scopes)
    return required


Resources = Annotated[ResourcesType, Depends(resources)]
Caller = Annotated[CallerType, Security(caller)]
