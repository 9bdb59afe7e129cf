"""What is cached: declared at the endpoint, and named so that what belongs together lies together.

Keys and tags begin with their scope (an organization's id, or `public`), which is their hash tag in Redis: an entry and
the tags that it depends on are in one slot of a cluster.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import UUID

from app.platform.cache.answer import Answer

PUBLIC = "public"
MAX_TTL_SECONDS = 86_400
MAX_TAGS = 16
ATTRIBUTE = "__cache_rule__"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Audience = Literal["session", "caller", "organization", "public"]


@dataclass(frozen=True, slots=True)
class CacheRule:
    """Answers are kept for `ttl_seconds` or until a write touches one of the `tags`, and shared within `per`.

    The tags are the organization's; the user's own where it is per `session`, and everybody's where it is `public`.
    For `stale_seconds` more they are given while a new one is made, or can't be made. `negative_seconds`: how long it
    is kept that nothing is there (404).
    """

    ttl_seconds: float
    tags: tuple[str, ...] = ()
    per: Audience = "caller"
    stale_seconds: float = 0.0
    negative_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.ttl_seconds <= MAX_TTL_SECONDS:
            raise ValueError(f"a time to live of {self.ttl_seconds} s")
        if not all(0 <= seconds <= MAX_TTL_SECONDS for seconds in (self.stale_seconds, self.negative_seconds)):
            raise ValueError(f"{self.stale_seconds} s stale, {self.negative_seconds} s for what is not there")
        if len(self.tags) > MAX_TAGS:
            raise ValueError(f"{len(self.tags)} tags; at most {MAX_TAGS}")

    def fresh_seconds(self, answer: Answer) -> float:
        """0 for what is not kept."""
        if answer.cacheable:
            return self.ttl_seconds
        return self.negative_seconds if answer.says_nothing_is_there else 0.0


def cached(
    *,
    ttl_seconds: float,
    tags: tuple[str, ...],
    per: Audience = "caller",
    stale_seconds: float = 0.0,
    negative_seconds: float = 0.0,
) -> Callable[[Endpoint], Endpoint]:
    """Declare that an endpoint's answers may be kept. Wraps nothing: the gateway reads the rule."""
    rule = CacheRule(ttl_seconds, tags, per, stale_seconds, negative_seconds)

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, ATTRIBUTE, rule)
        return endpoint

    return declare


def cache_rule_of(endpoint: Callable[..., Any]) -> CacheRule | None:
    rule: CacheRule | None = getattr(endpoint, ATTRIBUTE, None)
    return rule


def tag(scope: UUID | str, name: str) -> str:
    """What writers touch, and entries depend on: all that is called `name` in an organization (or in `PUBLIC`)."""
    if " " in name:
        raise ValueError(f"a tag with a space: {name!r}")  # it ends a tag where tags are sent
    return f"{scope}:{name}"


def answer_key(scope: UUID | str, *parts: str) -> str:
    """Whatever the answer depends on: caller, path, query, media type. Of bounded length, whatever the parts are."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode(errors="surrogateescape")
        digest.update(len(encoded).to_bytes(4))
        digest.update(encoded)
    return f"{scope}:{digest.hexdigest()}"


def redis_key(kind: Literal["answer", "tag", "turn"], name: str) -> str:
    scope, _, rest = name.partition(":")
    return f"cache:{{{scope}}}:{kind}:{rest}"
