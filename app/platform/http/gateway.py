"""What every request passes before the router: who is it, may it come in, and is the answer there already.

A cached answer leaves from here, before FastAPI resolves a dependency or a pool is touched. It consists of the
bytes that the slow path sent, so that both give the same.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol
from uuid import UUID

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.cache import PUBLIC, CacheRule, Hit, Miss, ResponseCache, answer_key, cache_rule_of, tag
from app.platform.http.admission import account_of, admit, bearer_token, identify
from app.platform.http.consistency import HEADER as CONSISTENCY_HEADER
from app.platform.http.consistency import Consistency
from app.platform.http.hotpath import OFFER, HotPathParts, Offer
from app.platform.http.problems import TooManyRequests, send_problem
from app.platform.http.recording import header, record, send_answer
from app.platform.http.routes import RoutePolicy, RouteTable
from app.platform.http.surrogate_keys import SurrogateKeys
from app.platform.limits import ConcurrencyRule, LimitRule, concurrency_of, limits_of
from app.platform.security.caller import Caller
from app.platform.telemetry.context import current
from app.platform.telemetry.middleware import QUIET_PATHS


class GatewayParts(HotPathParts, Protocol):
    @property
    def consistency(self) -> Consistency: ...


class Gateway:
    """Pure ASGI. `routes` and `parts` are asked at each request: they exist only once the application is built."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Callable[[], RouteTable],
        parts: Callable[[], GatewayParts],
        default_limit: LimitRule,
        organization_limit: LimitRule | None,
        surrogate_keys: SurrogateKeys,
    ) -> None:
        self.app = app
        self.routes = routes
        self.parts = parts
        self.default_limit = default_limit
        self.organization_limit = organization_limit
        self.surrogate_keys = surrogate_keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET_PATHS:
            await self.app(scope, receive, send)
            return
        parts = self.parts()
        context = current()
        policy = self.routes().match(scope["method"], scope["path"])
        if policy is not None:
            context.route = policy.template
        caller = await identify(scope, parts.token_verifier, parts.api_keys, parts.revocations)
        account = account_of(caller, self._limit_of(policy), parts.rate_limiter, self.organization_limit)
        rule = cache_rule_of(policy.endpoint) if policy is not None else None
        # All that Redis is asked leaves together: nothing is waited for before.
        known = caller if isinstance(caller, Caller) else None
        remembered = parts.consistency.ask(str(known.user_id)) if known is not None else None
        question = parts.cache.ask(*names(scope, rule, known)) if rule is not None and known is not None else None
        if account is not None and (over := await admit(scope, account, parts.rate_limiter)) is not None:
            await send_problem(send, over, scope["path"])
            return
        required = await parts.consistency.required(header(scope, CONSISTENCY_HEADER), remembered)
        context.wal_required = max(context.wal_required, required.wal_position)
        context.last_read = required.last_read
        send = with_consistency(send, parts.consistency)
        work: Callable[[], Awaitable[None]] = partial(self.app, scope, receive, send)
        if question is not None and rule is not None and known is not None:
            self.surrogate_keys.add(question.tags)
            found = await parts.cache.lookup(question)
            if isinstance(found, Hit):
                if found.is_due:
                    parts.cache.refresh(question, rule, partial(record, self.app, alone(scope), no_body))
                elif found.kept is not None:
                    scope["state"][OFFER] = Offer(found.kept, account, known, bearer_token(scope) or "", context)
                context.served_by, context.cache = f"cache:{found.tier}", "stale" if found.is_stale else "hit"
                await send_answer(send, found.answer, scope, age_seconds=found.age_seconds)
                return
            work = partial(self._fill, scope, receive, send, parts.cache, rule, found)
        at_once = concurrency_of(policy.endpoint) if policy is not None else None
        if account is None or at_once is None:
            await work()
            return
        async with parts.rate_limiter.places.place(account.identity, at_once.name, at_once.most) as entered:
            await (work() if entered else send_problem(send, too_many_at_once(at_once), scope["path"]))

    def _limit_of(self, policy: RoutePolicy | None) -> LimitRule:
        declared = limits_of(policy.endpoint) if policy is not None else None
        return self.default_limit if declared is None else declared

    async def _fill(
        self, scope: Scope, receive: Receive, send: Send, cache: ResponseCache, rule: CacheRule, missed: Miss
    ) -> None:
        context = current()
        context.cache = "miss"
        # What is made now must not lack the last write to what it is made of: it would be kept.
        context.wal_required = max(context.wal_required, missed.wal_required)
        answer = await cache.fill(missed, rule, partial(record, self.app, scope, receive))
        await send_answer(send, answer, scope)


def too_many_at_once(rule: ConcurrencyRule) -> TooManyRequests:
    detail = f"At most {rule.most} of these requests can be under way at once."
    return TooManyRequests(detail, headers={"Retry-After": "1"})


def alone(scope: Scope) -> Scope:
    """The same question, asked by nobody who waits: what is made of it does not touch the request's own state."""
    return {**scope, "state": dict(scope["state"])}


async def no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def names(scope: Scope, rule: CacheRule, caller: Caller) -> tuple[str, tuple[str, ...]]:
    """The key of the answer, and the tags that it depends on."""
    owners: dict[str, UUID | str] = {"public": PUBLIC, "session": caller.user_id}
    owner = owners.get(rule.per, caller.organization_id)
    reader = {"caller": caller.key, "session": f"{caller.key}.{caller.session_id}"}.get(rule.per, "")
    # A hit leaves before the endpoint's scopes are looked at: it is for those alone who hold what its maker held.
    scopes = " ".join(sorted(caller.scopes))
    key = answer_key(owner, reader, scopes, scope["path"], scope["query_string"].decode("latin-1"))
    return key, tuple(tag(owner, name) for name in rule.tags)


def with_consistency(send: Send, consistency: Consistency) -> Send:
    """X-Consistency-Token where the request has written; where it has read is noted before its answer goes out."""

    async def send_consistently(message: Message) -> None:
        if message["type"] == "http.response.start":
            context = current()
            if context.wal_written:
                token = (CONSISTENCY_HEADER, consistency.token(context.wal_written).encode())
                message = {**message, "headers": [*message["headers"], token]}
            if context.read_from is not None and context.caller_id is not None:
                await consistency.remember_read(context.caller_id, context.read_from, context.last_read)
        await send(message)

    return send_consistently
