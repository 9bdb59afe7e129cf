"""What was decided, and how a client is told of it (draft-ietf-httpapi-ratelimit-headers-11)."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from app.platform.limits.gcra import Charge
from app.platform.limits.rules import MICROSECONDS, LimitRule


@dataclass(frozen=True)
class Decision:
    """`rule` has the amounts that hold where the charge was made, so the headers tell those."""

    rule: LimitRule
    charge: Charge

    @property
    def allowed(self) -> bool:
        return self.charge.wait_us == 0

    @property
    def limit(self) -> int:
        return self.rule.limits[self._tightest].amount

    @property
    def remaining(self) -> int:
        """Requests that would pass at once now."""
        return self._remaining[self._tightest]

    @property
    def reset_seconds(self) -> int:
        """Seconds, rounded up, until the burst is there again in full."""
        return _seconds(self.charge.owed_us[self._tightest])

    @property
    def retry_after_seconds(self) -> int:
        """Seconds, rounded up, until the refused request would pass; 0 if it has."""
        return _seconds(self.charge.wait_us)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Every policy, and what remains of it: `t` tells when its quota is whole again."""
        found = [(b"ratelimit-policy", self.rule.policy_header), (b"ratelimit", rate_limit(self.rule, self.charge))]
        if not self.allowed:
            found.append((b"retry-after", str(self.retry_after_seconds).encode()))
        return found

    @cached_property
    def _remaining(self) -> list[int]:
        return list(_pairs(self.rule, self.charge)[::2])

    @cached_property
    def _tightest(self) -> int:
        return min(range(len(self._remaining)), key=self._remaining.__getitem__)


def rate_limit(rule: LimitRule, charge: Charge) -> bytes:
    """The value of the RateLimit header."""
    return rule.state_template % _pairs(rule, charge)


def _pairs(rule: LimitRule, charge: Charge) -> tuple[int, ...]:
    """What remains of each limit, and the seconds until it is whole again."""
    found: list[int] = []
    for limit, owed in zip(rule.limits, charge.owed_us, strict=True):
        remaining = max(0, (limit.tolerance_us - owed) // limit.interval_us)
        found += (remaining + charge.held, -(-owed // MICROSECONDS))
    return tuple(found)


def _seconds(microseconds: int) -> int:
    return ceil(microseconds / MICROSECONDS)
