"""How much a request matters when not all can be served (Google, "Site Reliability Engineering", chapter 21)."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

ATTRIBUTE = "__criticality_rule__"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Criticality(IntEnum):
    """In the order in which they are served."""

    CRITICAL = 0  # without it nobody gets anywhere: logging in
    NORMAL = 1
    SHEDDABLE = 2  # can be asked for later: figures, exact totals, batches

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class CriticalityRule:
    """`level`, but sheddable when the query string has `sheddable_with` as one of its parameters."""

    level: Criticality = Criticality.NORMAL
    sheddable_with: str | None = None

    def of(self, query: bytes) -> Criticality:
        if self.sheddable_with is not None and self.sheddable_with.encode() in query.split(b"&"):
            return Criticality.SHEDDABLE
        return self.level


DEFAULT = CriticalityRule()


def criticality(
    level: Criticality = Criticality.NORMAL, *, sheddable_with: str | None = None
) -> Callable[[Endpoint], Endpoint]:
    """Declare it at an endpoint; those that declare nothing are `NORMAL`. E.g. `sheddable_with="total=exact"`."""
    rule = CriticalityRule(level, sheddable_with)

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, ATTRIBUTE, rule)
        return endpoint

    return declare


def criticality_of(endpoint: Callable[..., Any] | None) -> CriticalityRule:
    rule: CriticalityRule = getattr(endpoint, ATTRIBUTE, DEFAULT)
    return rule
