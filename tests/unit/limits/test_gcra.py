from hypothesis import given, settings
from hypothesis import strategies as st

from app.platform.limits import gcra
from app.platform.limits.gcra import LocalBuckets
from app.platform.limits.rules import Limit, LimitRule

SECOND = 1_000_000
limits = st.builds(Limit, st.integers(1, 50), st.integers(1, 60))
rules = st.lists(limits, min_size=1, max_size=3, unique_by=lambda limit: limit.window_seconds).map(
    lambda found: LimitRule("rule", tuple(found))
)
pauses = st.lists(st.one_of(st.just(0), st.integers(0, SECOND // 10), st.integers(0, 90 * SECOND)), max_size=200)


class Clock:
    def __init__(self) -> None:
        self.now = 10**15

    def __call__(self) -> int:
        return self.now


def admitted(rule: LimitRule, pauses: list[int]) -> list[int]:
    """The times at which requests passed, of one after each pause."""
    clock = Clock()
    buckets = LocalBuckets(clock)
    times = []
    for pause in pauses:
        clock.now += pause
        if buckets.charge("caller", rule).wait_us == 0:
            times.append(clock.now)
    return times


def exceeds(times: list[int], limit: Limit) -> bool:
    """Whether any window has more than burst + rate * t."""
    return any(
        (end - start + 1 - limit.amount) * limit.window_seconds * SECOND > (times[end] - times[start]) * limit.amount
        for start in range(len(times))
        for end in range(start + limit.amount, len(times))
    )


@settings(deadline=None)
@given(rules, pauses)
def test_in_every_window_at_most_burst_and_rate(rule: LimitRule, pauses: list[int]) -> None:
    times = admitted(rule, pauses)
    assert not any(exceeds(times, limit) for limit in rule.limits)


@settings(deadline=None)
@given(rules, pauses)
def test_control_a_counter_for_each_process_lets_more_through(rule: LimitRule, pauses: list[int]) -> None:
    """Two processes that each see every other request: over the limit as soon as there are enough at once."""
    flood = [0] * 2 * (max(limit.amount for limit in rule.limits) + 1) + pauses
    times = sorted(admitted(rule, flood[::2]) + admitted(rule, flood[1::2]))
    assert any(exceeds(times, limit) for limit in rule.limits)


@settings(deadline=None)
@given(limits)
def test_a_full_bucket_has_the_burst_and_refills_evenly(limit: Limit) -> None:
    rule = LimitRule("rule", (limit,))
    everything = [0] * (limit.amount + 5)
    assert len(admitted(rule, everything)) == limit.amount
    assert len(admitted(rule, [*everything, limit.interval_us, 0, limit.interval_us - 1, 1])) == limit.amount + 2


@settings(deadline=None)
@given(rules, pauses)
def test_a_refused_request_passes_after_the_wait_it_was_told_and_not_before(rule: LimitRule, pauses: list[int]) -> None:
    clock = Clock()
    buckets = LocalBuckets(clock)
    for pause in pauses:
        clock.now += pause
        if wait := buckets.charge("caller", rule).wait_us:
            clock.now += wait - 1
            assert buckets.charge("caller", rule).wait_us == 1
            clock.now += 1
            assert buckets.charge("caller", rule).wait_us == 0


def test_refused_by_one_limit_charged_to_none() -> None:
    clock = Clock()
    buckets = LocalBuckets(clock)
    rule = LimitRule("rule", (Limit(2, 1), Limit(100, 60)))
    charges = [buckets.charge("caller", rule) for _ in range(50)]
    assert [charge.wait_us == 0 for charge in charges[:3]] == [True, True, False]
    assert {charge.owed_us for charge in charges[2:]} == {charges[1].owed_us}


def test_the_table_is_bounded_and_forgets_who_was_not_seen_for_longest() -> None:
    buckets = LocalBuckets(Clock())
    rule = LimitRule("rule", (Limit(1, 60),))
    assert buckets.charge("first", rule).wait_us == 0
    for i in range(gcra.MAX_LOCAL_BUCKETS - 1):
        buckets.charge(f"caller:{i}", rule)
    assert buckets.charge("first", rule).wait_us > 0
    assert len(buckets._tats) == gcra.MAX_LOCAL_BUCKETS
    buckets.charge("one more", rule)
    assert len(buckets._tats) == gcra.MAX_LOCAL_BUCKETS
    assert buckets.charge("first", rule).wait_us > 0
    assert buckets.charge("caller:0", rule).wait_us == 0
