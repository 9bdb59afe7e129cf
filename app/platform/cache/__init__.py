"""The response cache: whole answers by caller, organization or for all, with a time to live and tags."""

from app.platform.cache.answer import Answer
from app.platform.cache.memory import Kept
from app.platform.cache.response_cache import Hit, Miss, Question, ResponseCache
from app.platform.cache.rules import PUBLIC, CacheRule, answer_key, cache_rule_of, cached, tag

__all__ = [
    "PUBLIC",
    "Answer",
    "CacheRule",
    "Hit",
    "Kept",
    "Miss",
    "Question",
    "ResponseCache",
    "answer_key",
    "cache_rule_of",
    "cached",
    "tag",
]
