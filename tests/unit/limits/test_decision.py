from dataclasses import replace

import pytest

from app.platform.limits import Decision, parse_limits
from app.platform.limits.gcra import Charge, LocalBuckets

RULE = parse_limits("10/second;100/minute", "app.features.equipment.endpoints.list_equipment")


def test_headers_as_in_the_draft() -> None:
    decision = Decision(parse_limits("100/minute"), Charge(0, (30_000_000,)))
    assert decision.allowed
    assert decision.headers() == [
        (b"ratelimit-policy", b'"default";q=100;w=60'),
        (b"ratelimit", b'"default";r=50;t=30'),
    ]


def test_every_policy_has_its_name_and_its_state() -> None:
    decision = Decision(RULE, Charge(0, (100_000, 60_000_000)))
    assert decision.headers() == [
        (b"ratelimit-policy", b'"list_equipment-1s";q=10;w=1, "list_equipment-60s";q=100;w=60'),
        (b"ratelimit", b'"list_equipment-1s";r=9;t=1, "list_equipment-60s";r=0;t=60'),
    ]
    assert (decision.limit, decision.remaining, decision.reset_seconds) == (100, 0, 60)


def test_refused_it_says_when_to_come_back_rounded_up() -> None:
    decision = Decision(RULE, Charge(50_000, (1_000_000, 2_000_000)))
    assert not decision.allowed
    assert decision.retry_after_seconds == 1
    assert decision.headers()[-1] == (b"retry-after", b"1")


def test_what_remains_is_what_passes() -> None:
    buckets = LocalBuckets(lambda: 0)
    rule = parse_limits("7/second")
    decisions = [Decision(rule, buckets.charge("caller", rule)) for _ in range(9)]
    assert [decision.remaining for decision in decisions] == [6, 5, 4, 3, 2, 1, 0, 0, 0]
    assert [decision.allowed for decision in decisions] == [True] * 7 + [False] * 2


@pytest.mark.parametrize(
    ("owed_us", "violated"),
    [
        ((1_000_000, 2_000_000), ["list_equipment-1s"]),
        ((100_000, 60_000_000), ["list_equipment-60s"]),
        ((1_000_000, 60_000_000), ["list_equipment-1s", "list_equipment-60s"]),
        ((900_000, 2_000_000), ["list_equipment-1s"]),  # it was refused, and since then time has passed
    ],
)
def test_refused_it_names_the_policies_that_refuse(owed_us: tuple[int, ...], violated: list[str]) -> None:
    assert Decision(RULE, Charge(50_000, owed_us)).violated == violated


def test_a_request_of_a_higher_cost_is_refused_before_nothing_is_left() -> None:
    rule = replace(RULE, cost=5)
    assert Decision(rule, Charge(50_000, (700_000, 2_000_000))).violated == ["list_equipment-1s"]
