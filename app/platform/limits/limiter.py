"""Asks Redis, as seldom as it can, and goes on without it."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from types import MappingProxyType

from prometheus_client import Counter
from redis.exceptions import RedisError

from app.platform.limits.concurrency import Places
from app.platform.limits.decision import Decision
from app.platform.limits.gcra import CHARGE, Charge, LocalBuckets
from app.platform.limits.leases import Account
from app.platform.limits.rules import MICROSECONDS, LimitRule
from app.platform.redis import RedisClient
from app.platform.telemetry.metrics import BatchedCounter

DECISIONS = Counter("rate_limit_decisions_total", "Requests, by what the limiter said", ["rule", "source", "outcome"])
MAX_ACCOUNTS = 10_000


class RateLimiter:
    """One limit for the whole fleet, kept in Redis, on its clock; of the limits that busy callers have, this process
    holds a lease.

    While Redis is away each process holds `local_share` of every limit by itself, so the fleet lets through at most
    `local_share` * processes of it. `scale` multiplies all amounts, and `tiers` those of callers of a tier.
    """

    def __init__(
        self,
        redis: RedisClient,
        *,
        scale: float = 1.0,
        local_share: float,
        enabled: bool = True,
        tiers: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.enabled = enabled
        self._tiers = tiers
        self._redis = redis
        self.places = Places(redis, local_share=local_share)
        self._buckets = LocalBuckets()
        self._accounts: OrderedDict[tuple[str, LimitRule, Account | None], Account] = OrderedDict()
        self._renewals: set[asyncio.Task[None]] = set()
        self._counters: dict[str, BatchedCounter] = {}
        self._multiplied = lru_cache(maxsize=1_024)(LimitRule.scaled)
        self._shared_rule = lru_cache(maxsize=1_024)(partial(LimitRule.scaled, factor=scale))
        self._local_rule = lru_cache(maxsize=1_024)(partial(LimitRule.scaled, factor=scale * local_share))

    def rule_for(self, tier: str, rule: LimitRule) -> LimitRule:
        """What the rule is for callers of a tier: as it was declared where it is strict, or nobody knows the tier."""
        factor = self._tiers.get(tier, 1.0)
        return rule if rule.per != "caller" or factor == 1.0 else self._multiplied(rule, factor)

    async def check(self, identity: str, rule: LimitRule) -> Decision:
        """Charge one request of `identity` (a short key, made by us: `user:...`, `address:...`). Raises nothing.

        Switched off, it lets everything pass and counts nothing.
        """
        if not self.enabled:
            return Decision(rule, Charge(0, (0,) * len(rule.limits)))
        return await self.charge(self.account(identity, rule))

    def account(self, identity: str, rule: LimitRule, within: Account | None = None) -> Account:
        """To be kept by who charges the same identity again. Those not seen for longest are forgotten."""
        key = (identity, rule, within)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(identity, rule, self._shared_rule(rule), within)
            if len(self._accounts) > MAX_ACCOUNTS:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(key)
        return account

    async def charge(self, account: Account) -> Decision:
        """The same for an account that is at hand."""
        if self.take(account, time.monotonic()):
            return Decision(account.rule, account.charge)
        return await self.ask(account)

    def take(self, account: Account, now: float) -> bool:
        """Charge a request, at `time.monotonic()`, to the permits that are held. False: there are none, see `ask`."""
        within = account.within
        if (within is not None and not within.may_take(now)) or not account.take(now):
            return False
        if within is not None:
            self.take(within, now)
        self._leased(account.rule.short_name).inc()
        if account.is_low:
            renewal = asyncio.create_task(self._renew(account))
            self._renewals.add(renewal)
            renewal.add_done_callback(self._renewals.discard)
        return True

    async def ask(self, account: Account) -> Decision:
        """Charge a request to Redis, unless its last refusal still stands. Raises nothing.

        It is charged to the account that it is within side by side: of two decisions the one that refuses holds.
        """
        if account.within is None:
            return await self._ask_alone(account)
        own, whole = await asyncio.gather(self._charge_alone(account), self.charge(account.within))
        return whole if own.allowed and not whole.allowed else own

    async def _charge_alone(self, account: Account) -> Decision:
        if account.take(time.monotonic()):
            self._leased(account.rule.short_name).inc()
            return Decision(account.rule, account.charge)
        return await self._ask_alone(account)

    async def _ask_alone(self, account: Account) -> Decision:
        """Who comes while a lease is on its way waits for that, once."""
        rule = account.rule
        if account.asking is not None:
            await account.asking.wait()
            if account.take(time.monotonic()):
                self._leased(rule.short_name).inc()
                return Decision(rule, account.charge)
        if wait := account.refused_us(time.monotonic()):
            decision, source = Decision(rule, account.charge._replace(wait_us=wait)), "lease"
        else:
            decision, source = await self._ask(account)
        DECISIONS.labels(rule.short_name, source, "allowed" if decision.allowed else "limited").inc()
        return decision

    async def aclose(self) -> None:
        for renewal in self._renewals:
            renewal.cancel()
        for counter in self._counters.values():
            counter.flush()

    def _leased(self, name: str) -> BatchedCounter:
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = BatchedCounter(DECISIONS.labels(name, "lease", "allowed"))
        return counter

    async def _ask(self, account: Account) -> tuple[Decision, str]:
        try:
            if account.lease_seconds and account.asking is None:
                wait = await self._lease(account, at_once=1)
            else:
                _, wait = await self._ask_redis(account, account.rule.cost, at_once=account.rule.cost)
        except RedisError:
            local = self._local_rule(account.declared)
            return Decision(local, self._buckets.charge(f"{account.identity}:{local.name}", local)), "local"
        return Decision(account.rule, account.charge._replace(wait_us=wait)), "redis"

    async def _renew(self, account: Account) -> None:
        with suppress(RedisError):
            await self._lease(account, at_once=0)

    async def _lease(self, account: Account, at_once: int) -> int:
        """Ask for as many permits as the account should hold; the wait if there are none. Raises RedisError.

        `at_once`: how many of them are used as soon as they are there.
        """
        asked_at = time.monotonic()
        answered = account.asking = asyncio.Event()
        try:
            granted, wait = await self._ask_redis(account, account.wanted(asked_at), at_once)
            if not wait:
                account.grant(granted - at_once, asked_at)
        finally:
            account.asking = None
            answered.set()
        return wait

    async def _ask_redis(self, account: Account, permits: int, at_once: int) -> tuple[int, int]:
        """How many are granted, and the wait if those at once are not."""
        asked_at = time.monotonic()
        arguments = [permits, at_once, int(account.lease_seconds * MICROSECONDS), *account.costs]
        granted, wait, *owed = await self._redis.run(CHARGE, account.keys, arguments)
        account.told(tuple(owed))
        if wait:
            account.refuse(wait, asked_at)
        return granted, wait
