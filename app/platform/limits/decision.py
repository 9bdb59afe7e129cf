"""What was decided, and how a client is told of it (draft-ietf-httpapi-ratelimit-headers-11)."""

from dataclasses import dataclass
from functools import cached_property

from app.platform.limits.gcra import Charge
from app.platform.limits.rules import MICROSECONDS, LimitRule


@dataclass(frozen=True)
class Decision:
    """`rule` has the amounts that hold where the charge was made, so the headers tell those.

    `is_local`: this process decided alone, of its share, since what counts for all was away.
    """

    rule: LimitRule
    charge: Charge
    is_local: bool = False

    @property
    def allowed(self) -> bool:
        return self.charge.wait_us == 0

    @property
    def violated(self) -> list[str]:
        """The policies, by the names in RateLimit-Policy, that would not let the request pass; one of them at least."""
        short = [index for index, count in enumerate(self._remaining) if count < self.rule.cost]
        return [self.rule.policies[index] for index in short or [self._tightest]]

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
        state = state_template(self.rule, self.charge.owed_us) % tuple(self._remaining)
        found = [(b"ratelimit-policy", self.rule.policy_header), (b"ratelimit", state)]
        if not self.allowed:
            found.append((b"retry-after", str(self.retry_after_seconds).encode()))
        return found

    @cached_property
    def _remaining(self) -> list[int]:
        return [count + self.charge.held for count in remaining(self.rule, self.charge.owed_us)]

    @cached_property
    def _tightest(self) -> int:
        return min(range(len(self._remaining)), key=self._remaining.__getitem__)


def remaining(rule: LimitRule, owed_us: tuple[int, ...]) -> list[int]:
    """Requests that each limit would let pass at once."""
    pairs = zip(rule.limits, owed_us, strict=True)
    return [max(0, (limit.tolerance_us - owed) // limit.interval_us) for limit, owed in pairs]


def state_template(rule: LimitRule, owed_us: tuple[int, ...]) -> bytes:
    """The value of the RateLimit header, with a `%d` for what remains of each limit."""
    pairs = zip(rule.policies, owed_us, strict=True)
    return ", ".join(f'"{policy}";r=%d;t={_seconds(owed)}' for policy, owed in pairs).encode()


def _seconds(microseconds: int) -> int:
    return -(-microseconds // MICROSECONDS)
