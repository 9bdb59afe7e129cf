"""Documents that are the same for everybody: the description of the API, its keys, its problem types.

They are what a browser, a CDN and nginx may keep. They say for how long (RFC 9111), for how long after that an old one
will do while a new one is fetched (`stale-while-revalidate`) or while there is none to be had (`stale-if-error`;
RFC 5861), and they have an ETag, so that what is still the same is not sent again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from starlette.types import ASGIApp, Receive, Scope, Send

from app.platform.cache import Answer
from app.platform.http.conditional import SAFE_METHODS, etag_of
from app.platform.http.recording import record, send_answer
from app.platform.http.surrogate_keys import SurrogateKeys


@dataclass(frozen=True, slots=True)
class PublicRule:
    """Seconds; `tags` are what a CDN may purge it by."""

    max_age: int
    stale_while_revalidate: int
    stale_if_error: int
    tags: tuple[str, ...]

    @property
    def cache_control(self) -> bytes:
        stale = f"stale-while-revalidate={self.stale_while_revalidate}, stale-if-error={self.stale_if_error}"
        return f"public, max-age={self.max_age}, {stale}".encode()


class PublicDocumentsMiddleware:
    """`rules`: by path, or by what a path begins with where that ends in a slash. Only what is a 200 may be kept."""

    def __init__(self, app: ASGIApp, *, rules: Mapping[str, PublicRule], surrogate_keys: SurrogateKeys) -> None:
        self.app = app
        self.rules = rules
        self.surrogate_keys = surrogate_keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = self._rule_of(scope)
        if rule is None:
            await self.app(scope, receive, send)
            return
        answer = await record(self.app, scope, receive)
        if answer.status == 200:
            self.surrogate_keys.add(rule.tags)
            answer = declared(answer, rule)
        await send_answer(send, answer, scope)

    def _rule_of(self, scope: Scope) -> PublicRule | None:
        if scope["type"] != "http" or scope["method"] not in SAFE_METHODS:
            return None
        path: str = scope["path"]
        return self.rules.get(path) or self.rules.get(path[: path.rfind("/") + 1])


def declared(answer: Answer, rule: PublicRule) -> Answer:
    own = ((b"cache-control", rule.cache_control), (b"etag", etag_of(answer.body).encode()))
    kept = tuple(pair for pair in answer.headers if pair[0] not in (b"cache-control", b"etag"))
    return replace(answer, headers=kept + own)
