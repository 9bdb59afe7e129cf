"""Asks Redis, as seldom as it can, and goes on without it."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

from prometheus_client import Counter
from redis.exceptions import RedisError

from app.platform.limits.concurrency import Places
from app.platform.limits.decision import Decision
from app.platform.limits.gcra import CHARGE, RECALL, Charge, LocalBuckets, Told
from app.platform.limits.leases import GRACE_SECONDS, LEASE_SECONDS, NOTHING, Account, Report
from app.platform.limits.rules import MICROSECONDS, LimitRule
from app.platform.redis import RedisClient
from app.platform.telemetry.metrics import BatchedCounter

DECISIONS = Counter("rate_limit_decisions_total", "Requests, by what the limiter said", ["rule", "source", "outcome"])
MAX_ACCOUNTS = 10_000
# Between the tries of who waits for what other processes give back: they have been asked to, and take a trip each.
PAUSES_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
RECONNECT_SECONDS = 0.5
SILENCE_SECONDS = 60.0  # then the connection is tried by making it anew
LASTS_US = int((LEASE_SECONDS + GRACE_SECONDS) * MICROSECONDS)
TAKEN = Told(granted=0, wait_us=0, lent=0, owed_us=())


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
        self._tasks: set[asyncio.Task[None]] = set()
        self._lending: dict[str, dict[Account, asyncio.TimerHandle]] = {}  # by the key of their leases
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
            self._in_background(self._renew(account))
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

    async def run(self) -> None:
        """Give back what others need, until it is cancelled, whether or not there is a Redis."""
        while True:
            with suppress(RedisError, OSError, TimeoutError):
                async with self._redis.subscription(RECALL) as next_message:
                    while True:
                        self._give_back((await next_message(SILENCE_SECONDS)).data.decode(errors="replace"))
            await asyncio.sleep(RECONNECT_SECONDS)

    async def aclose(self) -> None:
        """Gives back what is held: the processes that are left have all of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        lending = [pair for accounts in self._lending.values() for pair in accounts.items()]
        for _, timer in lending:
            timer.cancel()
        await asyncio.gather(*(self._give_back_all(account) for account, _ in lending))
        for counter in self._counters.values():
            counter.flush()

    def _leased(self, name: str) -> BatchedCounter:
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = BatchedCounter(DECISIONS.labels(name, "lease", "allowed"))
        return counter

    async def _ask(self, account: Account) -> tuple[Decision, str]:
        try:
            told = await self._charged(account)
        except RedisError:
            local = self._local_rule(account.declared)
            charge = self._buckets.charge(f"{account.identity}:{local.name}", local)
            return Decision(local, charge, is_local=True), "local"
        return Decision(account.rule, account.charge._replace(wait_us=told.wait_us)), "redis"

    async def _charged(self, account: Account) -> Told:
        """Where only what is lent to others is free, so many requests as that wait for it. Raises RedisError."""
        told = await self._charge_redis(account)
        if account.waiting >= told.lent:
            return told
        account.waiting += 1
        try:
            for seconds in PAUSES_SECONDS:
                self._give_back(account.keys[0])
                await asyncio.sleep(seconds)
                if account.take(time.monotonic()):  # another request of this process was lent more than its own
                    return TAKEN
                told = await self._charge_redis(account)
                if not told.lent:
                    break
        finally:
            account.waiting -= 1
        return told

    async def _charge_redis(self, account: Account) -> Told:
        if account.is_leased and account.asking is None:
            now = time.monotonic()
            return await self._settle(account, account.report(now, 1), now, at_once=1)
        return await self._ask_redis(account, NOTHING, account.rule.cost)

    async def _renew(self, account: Account) -> None:
        now = time.monotonic()
        if account.asking is None:
            with suppress(RedisError):
                await self._settle(account, account.report(now, 0), now)

    def _give_back(self, key: str) -> None:
        """What is held under this key."""
        for account in self._lending.get(key, ()):
            self._in_background(self._give_back_all(account))

    async def _give_back_all(self, account: Account) -> None:
        now = time.monotonic()
        if account.asking is None:
            with suppress(RedisError):
                await self._settle(account, account.give_back(now), now)

    async def _settle(self, account: Account, report: Report, asked_at: float, at_once: int = 0) -> Told:
        """Tell what was used, and ask for more. Raises RedisError."""
        answered = account.asking = asyncio.Event()
        try:
            told = await self._ask_redis(account, report, at_once)
            account.grant(told.granted, asked_at)
        except BaseException:
            account.forget()
            raise
        finally:
            account.asking = None
            answered.set()
        if account.held:
            self._watch(account)
        return told

    def _watch(self, account: Account) -> None:
        """Until its lease is over: then what was used is told, if not before."""
        lending = self._lending.setdefault(account.keys[0], {})
        if account not in lending:
            lending[account] = asyncio.get_running_loop().call_later(LEASE_SECONDS, self._lease_over, account)

    def _lease_over(self, account: Account) -> None:
        lending = self._lending[account.keys[0]]
        left = account.ends_at - time.monotonic()
        if left > 0 or account.asking is not None:
            again = asyncio.get_running_loop().call_later(max(left, 0.001), self._lease_over, account)
            lending[account] = again
            return
        del lending[account]
        if not lending:
            del self._lending[account.keys[0]]
        self._in_background(self._give_back_all(account))

    async def _ask_redis(self, account: Account, report: Report, at_once: int) -> Told:
        asked_at = time.monotonic()
        holder, kept, wanted, uses = report
        arguments: list[str | int] = [holder, kept, wanted, at_once, LASTS_US, len(uses) // 2, *uses, *account.costs]
        granted, wait, lent, *owed = await self._redis.run(CHARGE, account.keys, arguments)
        account.told(tuple(owed))
        if wait and not lent:
            account.refuse(wait, asked_at)
        return Told(granted, wait, lent, tuple(owed))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
