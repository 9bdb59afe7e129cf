"""A budget for retries: what fails for everybody must not be tried three times by everybody.

Each first attempt earns a share of a retry, up to a reserve; each retry spends one. A conflict now and then is tried
again, but when most attempts fail, retries stay a fraction of the load instead of multiplying it (Google, "Site
Reliability Engineering", chapter 22; the same as Finagle's RetryBudget).
"""

from prometheus_client import Counter

SHARE = 0.2  # retries that one first attempt earns
RESERVE = 50.0  # retries that may be made at once

RETRIES = Counter("retries_total", "Own retries, by whether the budget allowed them", ["operation", "outcome"])


class RetryBudget:
    """Of one process and one kind of `operation`. Begins full."""

    def __init__(self, operation: str, *, share: float = SHARE, reserve: float = RESERVE) -> None:
        self._share = share
        self._reserve = self._left = reserve
        self._allowed = RETRIES.labels(operation, "allowed")
        self._refused = RETRIES.labels(operation, "refused")

    def attempted(self) -> None:
        """For the first time."""
        self._left = min(self._reserve, self._left + self._share)

    def allow(self) -> bool:
        """Whether to try again now; true spends one."""
        if self._left < 1:
            self._refused.inc()
            return False
        self._left -= 1
        self._allowed.inc()
        return True
