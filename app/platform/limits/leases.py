"""Leases: permits of the shared limit that a process charges in advance, so that a busy caller's requests don't each
take a trip to Redis.

A lease is charged as if its requests came at its end, and its permits are void from then on (those that are left are
lost to the caller, and never to the limit). So each request is charged at the time of its admission or later, but never
beyond the tolerance of that moment, and GCRA's bound holds as it is: in any time t at most burst + rate * t pass.

The price is that a caller whose bucket is full loses the lease's time, 2% of the burst at most, and what processes
hold when its requests stop. So a lease takes little of what is left of the limit (see `gcra`), and nothing when that is
nearly used up: then each request is charged by itself. Limits too small for that (login, registration, a hundred a
second) are never leased.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from app.platform.limits.decision import remaining, state_template
from app.platform.limits.gcra import LEASED_PART, Charge
from app.platform.limits.rules import MICROSECONDS, LimitRule

WINDOWS_PER_LEASE = 1 / 50  # of the shortest window: how long a lease lasts
MAX_LEASE_SECONDS = 0.1
# Of what the caller is expected to ask for in a lease's time: so a lease is used up early, and little is lost.
EXPECTED_SHARE = 0.25
MAX_IDLE_LEASES = 10  # a caller who was away for longer begins anew
# A refusal stands for the wait that it told, without asking again, but not longer than this: a limit may be lifted.
MAX_REFUSED_SECONDS = 1.0


def lease_seconds(rule: LimitRule) -> float:
    """0 where every request is charged by itself."""
    if rule.cost > 1 or min(limit.amount for limit in rule.limits) < 2 * LEASED_PART:
        return 0.0
    return min(MAX_LEASE_SECONDS, min(limit.window_seconds for limit in rule.limits) * WINDOWS_PER_LEASE)


class Lease(NamedTuple):
    permits: int
    ends_at: float


NOTHING = Lease(0, 0.0)


class Account:
    """What one process holds of one caller's limit, and knows of it. Times are the monotonic clock's, in seconds."""

    __slots__ = (
        "_ends_at", "_low", "_most", "_next", "_owed_us", "_permits", "_policy", "_refused_until", "_remaining",
        "_since", "_size", "_taken", "_template", "_wait_until", "asking", "costs", "declared", "identity",
        "keys", "lease_seconds", "rule", "within",
    )  # fmt: skip

    def __init__(self, identity: str, declared: LimitRule, rule: LimitRule, within: "Account | None" = None) -> None:
        self.identity = identity
        self.within = within  # whoever is charged for each of its requests too: the caller's organization
        self.declared = declared
        self.rule = rule  # with the amounts that hold for all processes together
        self.keys: Sequence[str] = [f"limit:{{{identity}}}:{rule.name}:{limit.window_seconds}" for limit in rule.limits]
        self.costs = [us for limit in rule.limits for us in (limit.interval_us, limit.tolerance_us)]
        self.lease_seconds = lease_seconds(rule)
        self.asking: asyncio.Event | None = None  # set when the answer is there; one at a time asks for a lease
        self._most = max(1, min(limit.amount for limit in rule.limits) // LEASED_PART)
        self._size = 1
        self._taken = 1
        self._since = 0.0
        self._refused_until = self._wait_until = 0.0
        self._permits = 0
        self._ends_at = 0.0
        self._low = 0  # permits at which the next lease is asked for
        self._next = NOTHING
        self._policy = (b"ratelimit-policy", rule.policy_header)
        self.told((0,) * len(rule.limits))

    @property
    def held(self) -> int:
        return self._permits + self._next.permits

    @property
    def charge(self) -> Charge:
        """What the last trip to Redis told, with the permits that are still held."""
        return Charge(0, self._owed_us, self.held)

    def told(self, owed_us: tuple[int, ...]) -> None:
        """By Redis, with its answer to a charge: what is owed to each limit now."""
        self._owed_us = owed_us
        self._remaining = remaining(self.rule, owed_us)
        self._template = state_template(self.rule, owed_us)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Those of a request that was just charged to what is held: what `Decision` would make of it, but faster."""
        held = self.held
        state = self._template % tuple([count + held for count in self._remaining])
        return [self._policy, (b"ratelimit", state)]

    def may_take(self, now: float) -> bool:
        """Whether `take` would succeed."""
        return (self._permits > 0 and now < self._ends_at) or (self._next.permits > 0 and now < self._next.ends_at)

    def take(self, now: float) -> bool:
        """One of the permits held."""
        if now >= self._ends_at or not self._permits:
            self._begin(self._next)
            self._next = NOTHING
            if now >= self._ends_at or not self._permits:
                self._permits = 0
                return False
        self._permits -= 1
        self._taken += 1
        return True

    @property
    def is_low(self) -> bool:
        """Whether it is time for the next lease, so that nobody has to wait for it."""
        return self._permits < self._low and not self._next.permits and self.asking is None

    def refused_us(self, now: float) -> int:
        """What is left of the last refusal's wait; 0 if it stands no longer."""
        return int((self._wait_until - now) * MICROSECONDS) if now < self._refused_until else 0

    def wanted(self, now: float) -> int:
        """How many permits the next lease should have, by how many were taken since the last one was asked for."""
        elapsed = max(now - self._since, 1e-6)
        if elapsed > MAX_IDLE_LEASES * self.lease_seconds:
            self._size = 1
        else:
            expected = int(self._taken * self.lease_seconds * EXPECTED_SHARE / elapsed)
            self._size = max(1, self._size // 2, min(expected, 2 * self._size, self._most))
        self._taken, self._since = 1, now
        return self._size

    def grant(self, permits: int, asked_at: float) -> None:
        """A lease that was asked for at that time: Redis charged it then or later. Of none: not now."""
        if not permits:
            self._low = 0
            return
        lease = Lease(permits, asked_at + self.lease_seconds)
        if self._permits:
            self._next = lease
        else:
            self._begin(lease)

    def refuse(self, wait_us: int, asked_at: float) -> None:
        wait = wait_us / MICROSECONDS
        self._wait_until = asked_at + wait
        self._refused_until = asked_at + min(wait, MAX_REFUSED_SECONDS)

    def _begin(self, lease: Lease) -> None:
        self._permits, self._ends_at = lease
        self._low = lease.permits // 2
