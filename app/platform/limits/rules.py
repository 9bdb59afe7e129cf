"""What is limited: rules, in the spelling of slowapi, and the decorator that declares them at an endpoint."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Any, Literal, NamedTuple, TypeVar

import slowapi
from limits import parse_many
from slowapi.util import get_remote_address

MICROSECONDS = 1_000_000
MAX_LIMITS = 4
# RFC 9651 lets a string hold more; a name also becomes a key in Redis and a metric's label.
NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
ATTRIBUTE = "__limit_rule__"
CONCURRENCY_ATTRIBUTE = "__concurrency_limit__"

Per = Literal["caller", "user", "address"]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class Limit:
    """`amount` at once, and one more every `window_seconds` / `amount`."""

    amount: int
    window_seconds: int

    def __post_init__(self) -> None:
        if self.amount < 1 or self.window_seconds < 1:
            raise ValueError(f"a limit of {self.amount} in {self.window_seconds} s allows nothing")

    @cached_property
    def interval_us(self) -> int:
        """Microseconds that one request costs. Rounded up, so that rounding never adds a request."""
        return ceil(self.window_seconds * MICROSECONDS / self.amount)

    @cached_property
    def tolerance_us(self) -> int:
        """Microseconds that may be owed: the burst."""
        return self.interval_us * self.amount

    def scaled(self, factor: float, least: int = 1) -> "Limit":
        return replace(self, amount=max(least, int(self.amount * factor)))


@dataclass(frozen=True)
class LimitRule:
    """Limits that hold together: a request is charged `cost` to all of them or nothing. `name` is the bucket.

    `per` says whose bucket it is. `caller`: the API key's or the user's, as their tier multiplies it, or the address'
    without either. The others are strict, to keep guessing slow: they are the same in every tier, and no key or account
    brings another bucket. `user`: whichever key is sent; `address`: whatever is sent.
    """

    name: str
    limits: tuple[Limit, ...]
    cost: int = 1
    per: Per = "caller"

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"not a name for a limit: {self.name!r}")
        if not 1 <= len(self.limits) <= MAX_LIMITS:
            raise ValueError(f"{self.name}: {len(self.limits)} limits; 1 to {MAX_LIMITS} can hold together")
        if len({limit.window_seconds for limit in self.limits}) < len(self.limits):
            raise ValueError(f"{self.name}: two limits over the same window")
        if not 1 <= self.cost <= min(limit.amount for limit in self.limits):
            raise ValueError(f"{self.name}: a cost of {self.cost} never passes")

    def __hash__(self) -> int:
        return hash(self.name)  # which remembers its own

    @cached_property
    def short_name(self) -> str:
        return self.name.rpartition(".")[2]

    @cached_property
    def policies(self) -> tuple[str, ...]:
        """What clients see each limit as."""
        if len(self.limits) == 1:
            return (self.short_name,)
        return tuple(f"{self.short_name}-{limit.window_seconds}s" for limit in self.limits)

    @cached_property
    def policy_header(self) -> bytes:
        """The value of RateLimit-Policy."""
        pairs = zip(self.policies, self.limits, strict=True)
        return ", ".join(f'"{policy}";q={limit.amount};w={limit.window_seconds}' for policy, limit in pairs).encode()

    def scaled(self, factor: float) -> "LimitRule":
        return replace(self, limits=tuple(limit.scaled(factor, self.cost) for limit in self.limits))


def parse_limits(text: str, name: str = "default") -> LimitRule:
    """`"10/second;100/minute"`, `"5 per 2 hours"`: the notation of `limits`. Raises ValueError."""
    return LimitRule(name, tuple(Limit(item.amount, item.get_expiry()) for item in parse_many(text)))


def limits_of(endpoint: Callable[..., Any]) -> LimitRule | None:
    """The rule that `limiter.limit` declared."""
    rule: LimitRule | None = getattr(endpoint, ATTRIBUTE, None)
    return rule


class ConcurrencyRule(NamedTuple):
    name: str
    most: int


def concurrency_of(endpoint: Callable[..., Any]) -> ConcurrencyRule | None:
    """The rule that `limiter.concurrent` declared."""
    rule: ConcurrencyRule | None = getattr(endpoint, CONCURRENCY_ATTRIBUTE, None)
    return rule


class Limiter(slowapi.Limiter):
    """slowapi's decorator without its engine, which is synchronous: it would stop the event loop while Redis is away.

    `limit` leaves a note on the endpoint and wraps nothing; whoever routes the request enforces it by `RateLimiter`.
    """

    def __init__(self) -> None:
        super().__init__(key_func=get_remote_address, auto_check=False, key_style="endpoint")

    def limit(  # type: ignore[override]
        self, limit_value: str, *, name: str | None = None, cost: int = 1, per: Per = "caller"
    ) -> Callable[[Endpoint], Endpoint]:
        """Limit each caller of the endpoint. Endpoints that are given the same `name` share one bucket, from which a
        request takes as much as it is declared to cost. Whose bucket it is: see `LimitRule`.

        slowapi's other options are refused, not ignored.
        """

        def declare(endpoint: Endpoint) -> Endpoint:
            bucket = name or f"{endpoint.__module__}.{endpoint.__name__}"
            rule = replace(parse_limits(limit_value, bucket), cost=cost, per=per)
            if stacked := limits_of(endpoint):
                rule = replace(rule, limits=stacked.limits + rule.limits)
            setattr(endpoint, ATTRIBUTE, rule)
            return endpoint

        return declare

    def concurrent(self, most: int, *, name: str | None = None) -> Callable[[Endpoint], Endpoint]:
        """Limit how many of each caller's requests are under way at once; cached answers are none of them."""
        if most < 1:
            raise ValueError(f"{most} at once is none")

        def declare(endpoint: Endpoint) -> Endpoint:
            setattr(endpoint, CONCURRENCY_ATTRIBUTE, ConcurrencyRule(name or endpoint.__name__, most))
            return endpoint

        return declare


limiter = Limiter()
