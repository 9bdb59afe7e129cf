"""Leases: permits of the shared limit that are lent to a process, so that a caller's requests don't each take a trip to
Redis.

What is lent is free for nobody else, until the process tells what it used and when, with its next trip. Redis charges
each use as of then, and the rest is free again. So GCRA's bound holds: of the requests that pass from a moment on, each
was charged as of that moment or later, or is among what is lent, and both together never lie further ahead than the
tolerance. And nothing is lost: what one process has and doesn't use, another that is about to refuse a request calls
back, and waits for. Who is silent (a process that died) has used it all, as of the lease's end.

Strict and small limits are never lent: log-in, registration, ten a second.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from app.platform.limits.decision import remaining, state_template
from app.platform.limits.gcra import LENT_PART, Charge
from app.platform.limits.rules import MICROSECONDS, LimitRule

LEAST_LEASED = 10 * LENT_PART  # of a limit's amount
LEASE_SECONDS = 1.0
GRACE_SECONDS = 0.5  # after it, in which Redis still hears what was used
TICK_SECONDS = 0.01  # uses within one are charged as if they came at its end
GROWTH = 4  # of one lease over the one before, at most
LEAST_LENT = 3  # less is not worth the trip that tells what was used
MAX_IDLE_LEASES = 10  # a caller who was away for longer begins anew
# A refusal stands for the wait that it told, without asking again, but not longer than this: a limit may be lifted.
MAX_REFUSED_SECONDS = 1.0


def is_leased(rule: LimitRule) -> bool:
    return rule.cost == 1 and rule.per == "caller" and min(limit.amount for limit in rule.limits) >= LEAST_LEASED


class Report(NamedTuple):
    """Of a lease, when the next one is asked for: `uses` has pairs of microseconds ago and how many they were."""

    holder: str = ""
    kept: int = 0
    wanted: int = 0
    uses: Sequence[int] = ()


NOTHING = Report()


class Account:
    """What one process holds of one caller's limit, and knows of it. Times are the monotonic clock's, in seconds."""

    __slots__ = (
        "_holder", "_low", "_most", "_owed_us", "_permits", "_policy", "_refused_until", "_remaining", "_since",
        "_size", "_template", "_tick_ends", "_tick_uses", "_ticks", "_wait_until", "asking", "costs", "declared",
        "ends_at", "identity", "is_leased", "keys", "rule", "waiting", "within",
    )  # fmt: skip

    def __init__(self, identity: str, declared: LimitRule, rule: LimitRule, within: "Account | None" = None) -> None:
        self.identity = identity
        self.within = within  # whoever is charged for each of its requests too: the caller's organization
        self.declared = declared
        self.rule = rule  # with the amounts that hold for all processes together
        bucket = f"limit:{{{identity}}}:{rule.name}"
        self.keys: Sequence[str] = [f"{bucket}:leases", *(f"{bucket}:{limit.window_seconds}" for limit in rule.limits)]
        self.costs = [us for limit in rule.limits for us in (limit.interval_us, limit.tolerance_us)]
        self.is_leased = is_leased(rule)
        self.asking: asyncio.Event | None = None  # set when the answer is there; one at a time asks for a lease
        self.waiting = 0  # requests, for what others give back
        self.ends_at = 0.0  # of what is held
        self._most = min(limit.amount for limit in rule.limits) // LENT_PART
        self._size = 1
        self._since = 0.0
        self._refused_until = self._wait_until = 0.0
        self._low = 0  # permits at which the next lease is asked for
        self._policy = (b"ratelimit-policy", rule.policy_header)
        self.told((0,) * len(rule.limits))
        self.forget()

    def forget(self) -> None:
        """What Redis knows of it is not known any more: it counts as used there, and nothing of it is used here."""
        self._holder = secrets.token_hex(6)
        self._permits = self._tick_uses = 0
        self._tick_ends = 0.0
        self._ticks: list[tuple[float, int]] = []

    @property
    def held(self) -> int:
        return self._permits

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
        held = self._permits
        state = self._template % tuple([count + held for count in self._remaining])
        return [self._policy, (b"ratelimit", state)]

    def may_take(self, now: float) -> bool:
        """Whether `take` would succeed."""
        return self._permits > 0 and now < self.ends_at

    def take(self, now: float) -> bool:
        """One of the permits held."""
        if not self._permits or now >= self.ends_at:
            return False
        self._permits -= 1
        if now >= self._tick_ends:
            self._end_tick()
            self._tick_ends = now + TICK_SECONDS
        self._tick_uses += 1
        return True

    @property
    def is_low(self) -> bool:
        """Whether it is time for the next lease, so that nobody has to wait for it."""
        return self._permits < self._low and self.asking is None

    def refused_us(self, now: float) -> int:
        """What is left of the last refusal's wait; 0 if it stands no longer."""
        return int((self._wait_until - now) * MICROSECONDS) if now < self._refused_until else 0

    def report(self, now: float, at_once: int) -> Report:
        """With how much is wanted, of which `at_once` are used as soon as it is there."""
        if now >= self.ends_at:
            self._permits = 0
        uses = self._uses(now)
        size = self._wanted(now, sum(uses[1::2]) + at_once)
        return Report(self._holder, self._permits, max(0, size - self._permits - at_once), uses)

    def give_back(self, now: float) -> Report:
        self._permits = 0
        return Report(self._holder, uses=self._uses(now))

    def grant(self, permits: int, asked_at: float) -> None:
        """What was asked for at that time, beside what was kept: Redis lent it then or later. Of none: not now."""
        self._permits += permits
        self._low = self._permits // 4 if permits else 0
        self.ends_at = asked_at + LEASE_SECONDS

    def refuse(self, wait_us: int, asked_at: float) -> None:
        wait = wait_us / MICROSECONDS
        self._wait_until = asked_at + wait
        self._refused_until = asked_at + min(wait, MAX_REFUSED_SECONDS)

    def _wanted(self, now: float, taken: int) -> int:
        """How many permits to hold, by how many were taken since the last ones were asked for."""
        elapsed = max(now - self._since, 1e-6)
        self._since = now
        if elapsed > MAX_IDLE_LEASES * LEASE_SECONDS:
            self._size = 1
            return 0
        expected = int(taken * LEASE_SECONDS / elapsed)
        self._size = max(1, self._size // 2, min(expected, GROWTH * self._size, self._most))
        return self._size if self._size >= LEAST_LENT else 0

    def _uses(self, now: float) -> list[int]:
        self._end_tick()
        self._tick_ends = 0.0
        ticks, self._ticks = self._ticks, []
        return [value for end, uses in ticks for value in (max(0, int((now - end) * MICROSECONDS)), uses)]

    def _end_tick(self) -> None:
        if self._tick_uses:
            self._ticks.append((self._tick_ends, self._tick_uses))
            self._tick_uses = 0
