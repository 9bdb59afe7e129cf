"""What is cached: declared at the endpoint, and named so that what belongs together lies together.

Keys and tags begin with their scope (an organization's id, or `public`), which is their hash tag in Redis: an entry and
the tags that it depends on are in one slot of a cluster.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import UUID

PUBLIC = "public"
MAX_TTL_SECONDS = 86_400
MAX_TAGS = 16
ATTRIBUTE = "__cache_rule__"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Audience = Literal["caller", "organization", "public"]


@dataclass(frozen=True, slots=True)
class CacheRule:
    """Answers are kept for `ttl_seconds` or until a write touches one of the `tags`, and shared within `per`."""

    ttl_seconds: float
    tags: tuple[str, ...]
    per: Audience = "caller"

    def __post_init__(self) -> None:
        if not 0 < self.ttl_seconds <= MAX_TTL_SECONDS:
            raise ValueError(f"a time to live of {self.ttl_seconds} s")
        if len(self.tags) > MAX_TAGS:
            raise ValueError(f"{len(self.tags)} tags; at most {MAX_TAGS}")


def cached(*, ttl_seconds: float, tags: tuple[str, ...], per: Audience = "caller") -> Callable[[Endpoint], Endpoint]:
    """Declare that an endpoint's answers may be kept. Wraps nothing: the gateway reads the rule."""
    rule = CacheRule(ttl_seconds, tags, per)

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
