import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.platform.cache import CacheRule, answer_key, cache_rule_of, cached, tag
from app.platform.cache.rules import redis_key

parts = st.lists(st.text(max_size=20), max_size=6)


def test_the_decorator_only_leaves_a_note() -> None:
    async def endpoint() -> None: ...

    assert cached(ttl_seconds=30, tags=("equipment",), per="organization")(endpoint) is endpoint
    assert cache_rule_of(endpoint) == CacheRule(30, ("equipment",), "organization")
    assert cache_rule_of(test_the_decorator_only_leaves_a_note) is None


def test_by_default_an_answer_is_its_callers_own() -> None:
    assert CacheRule(30, ()).per == "caller"


@pytest.mark.parametrize("ttl_seconds", [0, -1, 86_401])
def test_a_time_to_live_has_bounds(ttl_seconds: float) -> None:
    with pytest.raises(ValueError, match="time to live"):
        CacheRule(ttl_seconds, ())


def test_tags_have_a_limit() -> None:
    with pytest.raises(ValueError, match="at most 16"):
        CacheRule(30, tuple(map(str, range(17))))


@settings(deadline=None)
@given(parts, parts)
def test_keys_are_equal_only_for_equal_parts(first: list[str], second: list[str]) -> None:
    assert (answer_key("scope", *first) == answer_key("scope", *second)) == (first == second)


def test_keys_are_of_bounded_length_and_take_any_text() -> None:
    assert len(answer_key("scope", "x" * 100_000, "\udcff")) == len("scope:") + 32


def test_the_scope_is_the_hash_tag() -> None:
    assert redis_key("tag", tag("scope", "equipment")) == "cache:{scope}:tag:equipment"
