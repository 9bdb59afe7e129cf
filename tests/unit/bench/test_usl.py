"""The law is found again in points that follow it, and a point that breaks it is told of."""

import math

import pytest

from bench.usl import Curve, checked

TRUE = Curve(one=900.0, contention=0.03, coherence=0.0004)
POINTS = (1, 2, 4, 8, 16, 32, 64)


def measured(curve: Curve, *, noise: float = 0.0) -> dict[int, float]:
    """With errors of that share, up and down in turn."""
    return {n: curve.at(n) * (1 + noise * (-1) ** place) for place, n in enumerate(POINTS)}


def test_the_law_is_found_again() -> None:
    found = Curve.fitted(measured(TRUE))
    assert found.one == pytest.approx(TRUE.one)
    assert found.contention == pytest.approx(TRUE.contention)
    assert found.coherence == pytest.approx(TRUE.coherence)
    assert found.best == pytest.approx(math.sqrt(0.97 / 0.0004))
    assert found.limit == pytest.approx(TRUE.at(TRUE.best))


def test_noise_moves_it_little() -> None:
    found = Curve.fitted(measured(TRUE, noise=0.03))
    assert all(found.at(n) == pytest.approx(TRUE.at(n), rel=0.06) for n in POINTS)


def test_what_scales_better_than_linearly_is_taken_for_linear() -> None:
    found = Curve.fitted({1: 100.0, 2: 210.0, 4: 430.0, 8: 900.0})
    assert (found.contention, found.coherence) == (0.0, 0.0)
    assert found.best == found.limit == math.inf


def test_contention_alone_has_a_limit_that_is_never_reached() -> None:
    amdahl = Curve(100.0, 0.1, 0.0)
    assert amdahl.best == math.inf
    assert amdahl.limit == pytest.approx(1_000)


def test_where_two_do_less_than_one_one_is_best() -> None:
    found = Curve.fitted({1: 100.0, 2: 60.0, 4: 30.0, 8: 15.0})
    assert found.best == 1
    assert found.limit == pytest.approx(found.at(1))


def test_the_last_point_is_foretold_by_the_others() -> None:
    _, check = checked(measured(TRUE, noise=0.02))
    assert check.n == 64
    assert check.holds


def test_control_a_point_off_the_law_does_not_pass() -> None:
    points = measured(TRUE)
    _, check = checked(points | {64: points[64] * 0.7})
    assert not check.holds
    assert check.error == pytest.approx(1 / 0.7 - 1)


@pytest.mark.parametrize("points", [{}, {1: 5.0, 2: 9.0}, {0: 1.0, 1: 5.0, 2: 9.0}, {1: 5.0, 2: 0.0, 4: 9.0}])
def test_too_little_is_refused(points: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="three points"):
        Curve.fitted(points)
