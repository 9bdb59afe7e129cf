"""The limit on a machine that is made of arithmetic: so many can be worked on at once, the others share."""

import pytest

from app.platform.resilience.overload import AdaptiveLimit

USUAL = 0.05


class Machine:
    """Works on `width` requests at once without any being slower."""

    def __init__(self, width: int, least: int = 4, most: int = 200) -> None:
        self.width = width
        self.now = 0.0
        self.limit = AdaptiveLimit(least=least, most=most, clock=lambda: self.now)

    def run(self, seconds: float, in_flight: int | None = None, usual: float = USUAL, route: str = "/a") -> None:
        """With as many in flight as the limit allows, or fewer."""
        end = self.now + seconds
        while self.now < end:
            together = self.limit.value if in_flight is None else min(in_flight, self.limit.value)
            took = usual * max(1.0, together / self.width)
            self.now += took
            for _ in range(together):
                self.limit.observe(route, took, together)


def rested(width: int) -> Machine:
    machine = Machine(width)
    machine.run(10, in_flight=1)
    return machine


@pytest.mark.parametrize("width", [8, 20, 50])
def test_it_finds_what_the_machine_can_do(width: int) -> None:
    machine = rested(width)
    machine.run(60)
    assert width <= machine.limit.value <= 4 * width


def test_it_follows_a_machine_that_becomes_narrower() -> None:
    machine = rested(50)
    machine.run(60)
    wide = machine.limit.value
    machine.width = 10
    machine.run(60)
    assert machine.limit.value < wide / 2


def test_a_long_overload_does_not_pass_for_normal() -> None:
    machine = rested(10)
    machine.run(10)
    soon = machine.limit.value
    machine.run(60)
    assert machine.limit.value <= 2 * soon


def test_a_mix_of_quick_and_slow_routes_has_no_pressure() -> None:
    machine = Machine(1_000)
    for _ in range(50):
        machine.run(0.2, in_flight=1, usual=0.001, route="/quick")
        machine.run(0.2, in_flight=1, usual=0.1, route="/slow")
    for _ in range(50):
        machine.run(0.2, usual=0.001, route="/quick")
        machine.run(0.2, usual=0.1, route="/slow")
    assert machine.limit.value == 200


def test_work_that_becomes_slower_for_good_is_learnt() -> None:
    machine = rested(20)
    machine.run(30, in_flight=1, usual=10 * USUAL)
    machine.run(120, usual=10 * USUAL)
    assert machine.limit.value >= 20


def test_it_stays_where_it_is_while_it_holds_nobody_back() -> None:
    machine = rested(20)
    machine.run(30)
    machine.run(1, in_flight=1)  # ends the last window that was full
    before = machine.limit.value
    machine.run(10, in_flight=1, usual=5 * USUAL)
    assert machine.limit.value == before


def test_bounds_are_kept() -> None:
    machine = Machine(1, least=5, most=7)
    machine.run(60)
    assert 5 <= machine.limit.value <= 7
    machine = Machine(1_000, least=5, most=7)
    machine.run(60)
    assert machine.limit.value == 7


def test_bounds_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="between 5 and 4"):
        AdaptiveLimit(least=5, most=4)
