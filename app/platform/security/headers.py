"""What browsers are told, and what they tell: security headers on every answer, and no writes from foreign sites.

The headers are those that OWASP's REST Security Cheat Sheet asks of an API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.errors import Forbidden
from app.platform.http.problems import problem_of, send_problem

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
SAME_SITE_ENOUGH = frozenset((b"same-origin", b"none"))  # none: the user typed it, or used a bookmark

HSTS_SECONDS = 31_536_000
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
# Swagger UI, where FastAPI's page takes it from: jsDelivr, started by a script within the page.
DOCS_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/ 'unsafe-inline'",
        "style-src https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/ 'unsafe-inline'",
        "img-src 'self' data: https://fastapi.tiangolo.com/img/",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

Headers = list[tuple[bytes, bytes]]


def security_headers(policy: str, *, https_only: bool) -> Headers:
    headers = [
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", policy.encode()),
    ]
    if https_only:
        headers.append((b"strict-transport-security", b"max-age=%d; includeSubDomains" % HSTS_SECONDS))
    return headers


class SecurityHeadersMiddleware:
    def __init__(self, app: ASGIApp, *, https_only: bool, docs_path: str = "/docs") -> None:
        self._app = app
        self._docs_paths = frozenset((docs_path, f"{docs_path}/oauth2-redirect"))
        self._docs_headers = security_headers(DOCS_POLICY, https_only=https_only)
        self._headers = security_headers(API_POLICY, https_only=https_only)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added = self._docs_headers if scope["path"] in self._docs_paths else self._headers

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            return send(message)

        await self._app(scope, receive, send_with_headers)


class CrossSiteWriteMiddleware:
    """Refuses writes that another site has a browser make, by `Sec-Fetch-Site` and, from older browsers, `Origin`.

    Those send neither that are no browsers: they carry no one's cookies, and pass. (The algorithm is that of Go's
    http.CrossOriginProtection.) `trusted_origins` are exact: scheme, host and port.
    """

    def __init__(self, app: ASGIApp, *, trusted_origins: Iterable[str] = ()) -> None:
        self._app = app
        self._trusted = frozenset(origin.encode() for origin in trusted_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS or self._allows(dict(scope["headers"])):
            await self._app(scope, receive, send)
            return
        problem = problem_of(Forbidden("Writes from another site are refused."))
        await send_problem(send, problem, scope["path"])

    def _allows(self, headers: dict[bytes, bytes]) -> bool:
        origin = headers.get(b"origin")
        if origin is not None and origin in self._trusted:
            return True
        site = headers.get(b"sec-fetch-site")
        if site is not None:
            return site in SAME_SITE_ENOUGH
        return origin is None or _host(origin) == headers.get(b"host", b"")


def _host(origin: bytes) -> bytes | None:
    """None for `null` and whatever else is no origin."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
