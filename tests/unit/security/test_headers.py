import re
from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.platform.security.headers import CrossSiteWriteMiddleware, SecurityHeadersMiddleware

OURS = "https://app.example"
TRUSTED = "https://console.example"


async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def ask(
    app: ASGIApp, method: str = "GET", path: str = "/", headers: dict[str, str] | None = None
) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=OURS) as client:
        return await client.request(method, path, headers=headers)


async def test_every_answer_tells_browsers_to_be_strict() -> None:
    headers = (await ask(SecurityHeadersMiddleware(endpoint, https_only=False))).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "strict-transport-security" not in headers


async def test_https_is_demanded_where_there_is_only_https() -> None:
    headers = (await ask(SecurityHeadersMiddleware(endpoint, https_only=True))).headers
    assert headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"


def sources(policy: str, directive: str) -> list[str]:
    directives = (part.split() for part in policy.split(";"))
    return next((rest for name, *rest in directives if name == directive), [])


async def test_the_docs_may_load_what_fastapis_page_loads() -> None:
    response = await ask(SecurityHeadersMiddleware(FastAPI(), https_only=False), path="/docs")
    policy = response.headers["content-security-policy"]
    (script,) = re.findall(r'<script src="([^"]+)"', response.text)
    (style,) = re.findall(r'<link type="text/css" rel="stylesheet" href="([^"]+)"', response.text)
    (icon,) = re.findall(r'<link rel="shortcut icon" href="([^"]+)"', response.text)
    for url, directive in ((script, "script-src"), (style, "style-src"), (icon, "img-src")):
        assert any(url.startswith(source) for source in sources(policy, directive)), (url, directive)
    assert "'self'" in sources(policy, "connect-src")
    assert "'none'" in sources(policy, "frame-ancestors")


@pytest.mark.parametrize("path", ["/docs/", "/docs/../api", "/docsx", "/api/v1/docs"])
async def test_only_the_docs_may(path: str) -> None:
    headers = (await ask(SecurityHeadersMiddleware(endpoint, https_only=False), path=path)).headers
    assert "unsafe-inline" not in headers["content-security-policy"]


def guarded() -> CrossSiteWriteMiddleware:
    return CrossSiteWriteMiddleware(endpoint, trusted_origins=[TRUSTED])


REFUSED = {
    "another site": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    "another site without an origin": {"Sec-Fetch-Site": "cross-site"},
    "a sibling domain": {"Sec-Fetch-Site": "same-site", "Origin": "https://blog.example"},
    "a word that does not exist": {"Sec-Fetch-Site": "anything", "Origin": OURS},
    "older browser, another site": {"Origin": "https://evil.example"},
    "older browser, null": {"Origin": "null"},
    "older browser, empty": {"Origin": ""},
    "older browser, another port": {"Origin": f"{OURS}:8443"},
    "older browser, prefix": {"Origin": f"{OURS}.evil.example"},
    "older browser, user part": {"Origin": "https://app.example@evil.example"},
    "trusted, but for the scheme": {"Sec-Fetch-Site": "cross-site", "Origin": TRUSTED.replace("https", "http")},
    "trusted, but for the port": {"Sec-Fetch-Site": "cross-site", "Origin": f"{TRUSTED}:444"},
    "trusted, but for the case": {"Sec-Fetch-Site": "cross-site", "Origin": TRUSTED.upper()},
    "no origin at all": {"Origin": "https://["},
}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "INVENTED"])
@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED.keys())
async def test_writes_from_elsewhere_are_refused(method: str, headers: dict[str, str]) -> None:
    response = await ask(guarded(), method, "/thing", headers)
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["instance"] == "/thing"


ALLOWED = {
    "no browser": {},
    "our own page": {"Sec-Fetch-Site": "same-origin", "Origin": OURS},
    "typed in": {"Sec-Fetch-Site": "none"},
    "older browser, our own page": {"Origin": OURS},
    "a trusted site": {"Sec-Fetch-Site": "cross-site", "Origin": TRUSTED},
    "older browser, a trusted site": {"Origin": TRUSTED},
}


@pytest.mark.parametrize("headers", ALLOWED.values(), ids=ALLOWED.keys())
async def test_other_writes_pass(headers: dict[str, str]) -> None:
    assert (await ask(guarded(), "POST", headers=headers)).text == "done"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_reads_pass(method: str) -> None:
    assert (await ask(guarded(), method, headers=REFUSED["another site"])).status_code == 200


@pytest.mark.parametrize(
    "wrap", [guarded, lambda: SecurityHeadersMiddleware(endpoint, https_only=True)], ids=["writes", "headers"]
)
async def test_what_is_not_http_passes(wrap: Callable[[], ASGIApp]) -> None:
    passed: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["type"])

    middleware = wrap()
    middleware._app = app  # type: ignore[attr-defined]
    serving: Awaitable[None] = middleware({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    await serving
    assert passed == ["lifespan"]
