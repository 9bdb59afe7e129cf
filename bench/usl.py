"""The universal scalability law, fitted by least squares and tried on a point that the fit has not seen.

N. J. Gunther, Guerrilla Capacity Planning (2007): X(N) = λN / (1 + σ(N-1) + κN(N-1)), where σ is contention (waiting
for what is shared) and κ coherence (agreeing on it). N/X(N) is linear in 1/λ, σ/λ and κ/λ: nothing to iterate.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Self

import numpy as np

TOLERANCE = 0.15


@dataclass(frozen=True, slots=True)
class Curve:
    one: float  # λ, the throughput of one
    contention: float  # σ
    coherence: float  # κ

    @classmethod
    def fitted(cls, throughput: Mapping[int, float]) -> Self:
        """By least squares of the relative errors, with σ and κ of 0 or more. `ValueError` below three points."""
        if len(throughput) < 3 or min(throughput) < 1 or min(throughput.values()) <= 0:
            raise ValueError("the law takes three points or more, each with a throughput")
        n = np.array(sorted(throughput), dtype=float)
        seconds = n / np.array([throughput[int(number)] for number in n])
        terms = np.stack([np.ones_like(n), n - 1, n * (n - 1)], axis=1) / seconds[:, None]
        one, contention, coherence = _non_negative(terms)
        return cls(1 / one, contention / one, coherence / one)

    def at(self, n: float) -> float:
        return self.one * n / (1 + self.contention * (n - 1) + self.coherence * n * (n - 1))

    @property
    def best(self) -> float:
        """Where more begins to give less; infinite where it never does."""
        if not self.coherence:
            return math.inf if self.contention < 1 else 1.0
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.coherence))

    @property
    def limit(self) -> float:
        """The throughput that is never exceeded; infinite where the law is a straight line."""
        if math.isfinite(self.best):
            return self.at(self.best)
        return self.one / self.contention if self.contention else math.inf


@dataclass(frozen=True, slots=True)
class Check:
    """A point that was left out of the fit, as the fit predicts it."""

    n: int
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1

    @property
    def holds(self) -> bool:
        return abs(self.error) <= TOLERANCE


def checked(throughput: Mapping[int, float]) -> tuple[Curve, Check]:
    """The curve of all points but the last, and what it makes of that one: plans reach ahead as well."""
    held_out = max(throughput)
    curve = Curve.fitted({n: rate for n, rate in throughput.items() if n != held_out})
    return curve, Check(held_out, throughput[held_out], curve.at(held_out))


def _non_negative(terms: np.ndarray) -> tuple[float, float, float]:
    """The best coefficients of `terms @ x = 1`: with the last two free, or one or both of them 0."""
    best, least = (0.0, 0.0, 0.0), math.inf
    for size in (3, 2, 1):
        for free in combinations(range(3), size):
            if free[0] != 0:
                continue
            found = np.zeros(3)
            found[list(free)] = np.linalg.lstsq(terms[:, list(free)], np.ones(len(terms)), rcond=None)[0]
            error = float(np.square(terms @ found - 1).sum())
            if found.min() >= 0 and found[0] > 0 and error < least:
                best, least = (float(found[0]), float(found[1]), float(found[2])), error
    return best
