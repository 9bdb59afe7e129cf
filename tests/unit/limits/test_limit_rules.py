import pytest

from app.platform.limits import Limit, limiter, limits_of, parse_limits


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("10/minute", (Limit(10, 60),)),
        ("10/second;100/minute", (Limit(10, 1), Limit(100, 60))),
        ("5 per 2 hours", (Limit(5, 7_200),)),
    ],
)
def test_slowapi_notation(text: str, limits: tuple[Limit, ...]) -> None:
    assert parse_limits(text).limits == limits


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "couldn't parse"),
        ("soon", "couldn't parse"),
        ("0/minute", "allows nothing"),
        ("1/minute;2/minute", "same window"),
        ("1/second;1/minute;1/hour;1/day;1/month", "can hold together"),
    ],
)
def test_what_is_no_rule_is_refused_at_its_declaration(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_limits(text)


def test_the_decorator_only_leaves_a_note() -> None:
    async def endpoint() -> str:
        return "plain"

    decorated = limiter.limit("10/second;100/minute")(endpoint)
    assert decorated is endpoint
    rule = limits_of(endpoint)
    assert rule is not None
    assert rule.limits == (Limit(10, 1), Limit(100, 60))
    assert rule.policies == ("endpoint-1s", "endpoint-60s")


def test_stacked_decorators_hold_together() -> None:
    @limiter.limit("10/second")
    @limiter.limit("100/minute")
    async def endpoint() -> None: ...

    rule = limits_of(endpoint)
    assert rule is not None
    assert rule.limits == (Limit(100, 60), Limit(10, 1))


def test_endpoints_have_a_bucket_each_unless_they_share_a_name() -> None:
    async def first() -> None: ...
    async def second() -> None: ...
    async def third() -> None: ...

    limiter.limit("1/minute")(first)
    limiter.limit("1/minute", name="login")(second)
    limiter.limit("1/minute", name="login")(third)
    assert limits_of(first) != limits_of(second)
    assert limits_of(second) == limits_of(third)
    assert limits_of(test_slowapi_notation) is None


def test_an_interval_is_rounded_against_the_caller() -> None:
    assert Limit(7, 1).interval_us == 142_858
    assert Limit(7, 1).interval_us * 7 >= 1_000_000


def test_scaled_there_is_always_one() -> None:
    assert Limit(10, 60).scaled(0.5) == Limit(5, 60)
    assert Limit(10, 60).scaled(0.01) == Limit(1, 60)
    assert Limit(600, 60).scaled(1_000).interval_us == 100
