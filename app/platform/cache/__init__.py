"""The response cache: whole answers by caller, organization or for all, with a time to live and tags."""

from app.platform.cache.answer import Answer
from app.platform.cache.response_cache import Hit, Miss, ResponseCache
from app.platform.cache.rules import PUBLIC, CacheRule, answer_key, cache_rule_of, cached, tag

__all__ = [
    "PUBLIC",
    "Answer",
    "CacheRule",
    "Hit",
    "Miss",
    "ResponseCache",
    "answer_key",
    "cache_rule_of",
    "cached",
    "tag",
]
