from app.platform.resilience.breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(3, 10.0, name="test", clock=clock)


def opened(clock: Clock) -> CircuitBreaker:
    tested = breaker(clock)
    for _ in range(3):
        tested.failed()
    return tested


def test_opens_after_failures_in_a_row() -> None:
    tested = breaker(Clock())
    tested.failed()
    tested.failed()
    tested.succeeded()
    tested.failed()
    tested.failed()
    assert tested.allow()
    tested.failed()
    assert tested.state == "open"
    assert not tested.allow()


def test_half_open_lets_one_probe_through() -> None:
    clock = Clock()
    tested = opened(clock)
    clock.now = 10.0
    assert tested.state == "half_open"
    assert [tested.allow() for _ in range(5)] == [True, False, False, False, False]


def test_a_probe_that_succeeds_closes() -> None:
    clock = Clock()
    tested = opened(clock)
    clock.now = 10.0
    assert tested.allow()
    tested.succeeded()
    assert tested.state == "closed"
    assert tested.allow()
    tested.failed()
    assert tested.state == "closed"  # counting has begun anew


def test_probes_become_rarer_until_one_succeeds() -> None:
    clock = Clock()
    tested = opened(clock)
    assert pauses(tested, clock, 6) == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    tested.succeeded()
    tested.trip()
    assert pauses(tested, clock, 1) == [1.0]


def pauses(tested: CircuitBreaker, clock: Clock, count: int) -> list[float]:
    """Before each of the next probes, which fail."""
    found = []
    for _ in range(count):
        began = clock.now
        while not tested.allow():
            clock.now += 0.5
        tested.failed()
        found.append(clock.now - began)
    return found


def test_a_failure_that_tells_all_opens_at_once() -> None:
    tested = breaker(Clock())
    tested.trip()
    assert tested.state == "open"
    assert not tested.allow()


def test_a_probe_that_nobody_reports_on_is_replaced() -> None:
    clock = Clock()
    tested = opened(clock)
    clock.now = 10.0
    assert tested.allow()
    clock.now = 20.0
    assert tested.allow()


def test_failures_of_what_was_asked_before_it_opened_do_not_count_twice() -> None:
    clock = Clock()
    tested = opened(clock)
    tested.failed()
    clock.now = 10.0
    assert tested.allow()
