import asyncio
import multiprocessing
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.platform.limits import Limit, LimitRule, RateLimiter, concurrency, leases, parse_limits
from app.platform.limits.concurrency import Places
from app.platform.limits.gcra import LENT_PART, LocalBuckets
from app.platform.redis import RedisClient
from tests.support.redis_server import RedisServer, redis_client, redis_server, until_back

PROCESSES = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[RedisClient]:
    async with redis_client(server.url) as client:
        await client.execute("FLUSHALL")
        yield client


async def burst(limiter: RateLimiter, identity: str, rule: LimitRule, count: int) -> int:
    """How many of `count` requests at once pass."""
    decisions = await asyncio.gather(*(limiter.check(identity, rule) for _ in range(count)))
    return sum(decision.allowed for decision in decisions)


async def test_the_burst_passes_then_the_client_is_told_when_to_come_back(client: RedisClient) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    rule = parse_limits("10/minute")
    assert await burst(limiter, "user:1", rule, 30) == 10
    refused = await limiter.check("user:1", rule)
    assert not refused.allowed
    assert refused.remaining == 0
    assert 1 <= refused.retry_after_seconds <= 6
    assert 50 <= refused.reset_seconds <= 60
    assert (await limiter.check("user:2", rule)).allowed
    assert (await limiter.check("user:1", parse_limits("10/minute", "another"))).allowed


async def test_it_passes_again_after_the_wait_that_was_told(client: RedisClient) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    rule = parse_limits("2/second")
    assert await burst(limiter, "user:1", rule, 3) == 2
    refused = await limiter.check("user:1", rule)
    await asyncio.sleep(refused.charge.wait_us / 1e6 + 0.005)
    assert (await limiter.check("user:1", rule)).allowed


async def test_several_limits_charge_all_or_none(client: RedisClient) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    rule = parse_limits("5/second;8/minute")
    assert await burst(limiter, "user:1", rule, 100) == 5
    # The 95 that were refused by the first have cost nothing of the second.
    await asyncio.sleep(1.05)
    assert await burst(limiter, "user:1", rule, 100) == 3


async def test_a_request_may_cost_more_than_one(client: RedisClient) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    cheap = parse_limits("1000/hour", "shared")
    dear = replace(cheap, cost=200)
    assert await burst(limiter, "user:1", cheap, 390) == 390
    assert await burst(limiter, "user:1", dear, 10) == 3
    refused = await limiter.check("user:1", dear)
    assert not refused.allowed
    assert refused.remaining < 20
    assert 600 < refused.retry_after_seconds < 720  # until 200 are there
    assert 10 <= await burst(limiter, "user:1", cheap, 100) <= 12


async def test_what_it_costs_holds_without_redis_too(client: RedisClient) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    await client.aclose()
    assert await burst(limiter, "user:1", replace(parse_limits("100/hour"), cost=20), 10) == 2


async def test_scale_multiplies_every_limit(client: RedisClient) -> None:
    limiter = RateLimiter(client, scale=3, local_share=0.5)
    assert await burst(limiter, "user:1", parse_limits("10/hour"), 50) == 30


async def test_a_bucket_that_is_full_again_takes_no_memory(client: RedisClient) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    await limiter.check("user:1", parse_limits("10/second;1000/minute"))
    assert 0 < await client.execute("PTTL", "limit:{user:1}:default:1") <= 100
    await asyncio.sleep(0.15)
    assert await client.execute("EXISTS", "limit:{user:1}:default:1", "limit:{user:1}:default:60") == 0


async def test_all_keys_of_an_identity_are_in_one_slot(client: RedisClient) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    await limiter.check("user:1", parse_limits("10/hour;100/day"))
    keys = await client.execute("KEYS", "*")
    assert sorted(keys) == [b"limit:{user:1}:default:3600", b"limit:{user:1}:default:86400"]


async def test_a_clock_that_ran_ahead_locks_nobody_out(client: RedisClient) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    tomorrow = int((time.time() + 86_400) * 1e6)
    await client.execute("SET", "limit:{user:1}:default:60", tomorrow)
    refused = await limiter.check("user:1", parse_limits("60/minute"))
    assert refused.retry_after_seconds == 1


async def test_without_redis_a_share_of_the_limit_holds_in_each_process(
    client: RedisClient, server: RedisServer
) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    rule = parse_limits("100/hour")
    assert await burst(limiter, "user:1", rule, 20) == 20
    server.freeze()
    try:
        started = time.monotonic()
        # And what was lent before.
        assert 50 <= await burst(limiter, "user:1", rule, 200) <= 50 + 100 // LENT_PART
        assert time.monotonic() - started < 1
        started = time.monotonic()
        while client.stats().breaker == "closed":
            await limiter.check("user:1", rule)
        assert not (await limiter.check("user:1", rule)).allowed
        started = time.monotonic()
        assert await burst(limiter, "user:2", rule, 100) == 50
        assert time.monotonic() - started < 0.05  # nobody waits any more
    finally:
        server.thaw()
    await until_back(client)
    # What was charged while Redis could not answer may have been carried out; the rest of the limit is there.
    assert await burst(limiter, "user:3", rule, 200) == 100


async def test_killed_the_same(client: RedisClient, server: RedisServer) -> None:
    limiter = RateLimiter(client, local_share=0.2)
    rule = parse_limits("100/hour")
    server.kill()
    try:
        assert await burst(limiter, "user:1", rule, 200) == 20
    finally:
        server.start()
    await until_back(client)
    assert await burst(limiter, "user:1", rule, 200) == 100


async def test_switched_off_everything_passes(client: RedisClient) -> None:
    limiter = RateLimiter(client, local_share=0.5, enabled=False)
    assert await burst(limiter, "user:1", parse_limits("1/hour"), 20) == 20
    assert await client.execute("DBSIZE") == 0


# Within an organization


@pytest.mark.usefixtures("client")
async def test_members_share_what_their_organization_may(server: RedisServer) -> None:
    rule, whole = parse_limits("300/hour"), parse_limits("500/hour", "organization")
    passed = 0
    for number in range(3):
        async with redis_client(server.url, timeout_seconds=5) as client:
            limiter = RateLimiter(client, local_share=0.5)
            account = limiter.account(f"user:{number}", rule, limiter.account("organization:1", whole))
            decisions = [await limiter.charge(account) for _ in range(280)]
            passed += sum(decision.allowed for decision in decisions)
            await limiter.aclose()
    assert 500 <= passed <= 502
    assert decisions[-1].rule == whole
    assert not decisions[-1].allowed


async def test_a_member_has_no_more_than_their_own(client: RedisClient) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    whole = limiter.account("organization:1", parse_limits("1500/hour", "organization"))
    account = limiter.account("user:1", parse_limits("10/hour"), whole)
    decisions = await asyncio.gather(*(limiter.charge(account) for _ in range(30)))
    assert sum(decision.allowed for decision in decisions) == 10


# Leases: what processes are lent


async def trips(client: RedisClient) -> int:
    stats = await client.execute("INFO", "commandstats")
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in stats.decode().splitlines() if "_eval" in line)


async def trips_of_a_reader(client: RedisClient) -> float:
    """For each request of somebody who reads a list 90 times a second, at the list's own limits."""
    limiter = RateLimiter(client, local_share=0.5)
    whole = limiter.account("organization:1", parse_limits("6000/minute", "organization"))
    account = limiter.account("user:1", parse_limits("100/second;3000/minute"), whole)
    before, started = await trips(client), time.monotonic()
    for number in range(150):
        assert (await limiter.charge(account)).allowed
        await asyncio.sleep(max(0, started + number / 90 - time.monotonic()))
    await limiter.aclose()
    return (await trips(client) - before) / 150


async def test_a_request_seldom_costs_a_trip(client: RedisClient) -> None:
    assert await trips_of_a_reader(client) < 0.5


async def test_control_without_leases_each_costs_two(client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "is_leased", lambda _: False)
    assert await trips_of_a_reader(client) >= 2


async def read_a_little(limiter: RateLimiter, rule: LimitRule) -> int:
    """Until there is a lease of which much is left: how many that took."""
    account, used = limiter.account("user:1", rule), 0
    while account.held < 3:
        used += (await limiter.charge(account)).allowed
    return used


async def beside_a_holder(server: RedisServer, client: RedisClient) -> int:
    """How many of 200 in an hour pass, of which another process has used a few and holds others."""
    rule = parse_limits("200/hour")
    async with redis_client(server.url) as other_client:
        holder = RateLimiter(other_client, local_share=0.5)
        giving_back = asyncio.create_task(holder.run())
        passed = await read_a_little(holder, rule) + await burst(
            RateLimiter(client, local_share=0.5), "user:1", rule, 400
        )
        giving_back.cancel()
        await asyncio.wait([giving_back])
        await holder.aclose()
    return passed


async def test_what_others_hold_and_do_not_use_is_called_back(client: RedisClient, server: RedisServer) -> None:
    assert await beside_a_holder(server, client) == 200


async def test_control_where_nobody_waits_for_it_it_is_lost(
    client: RedisClient, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[RateLimiter.__module__], "PAUSES_SECONDS", ())
    assert await beside_a_holder(server, client) < 200


async def test_who_dies_with_a_lease_has_used_it_all(
    client: RedisClient, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[RateLimiter.__module__], "LASTS_US", 50_000)
    rule = parse_limits("200/hour")
    async with redis_client(server.url) as other_client:
        dying = RateLimiter(other_client, local_share=0.5)
        used, held = await read_a_little(dying, rule), dying.account("user:1", rule).held
    await asyncio.sleep(0.06)
    assert await burst(RateLimiter(client, local_share=0.5), "user:1", rule, 400) == 200 - used - held
    assert await client.execute("EXISTS", "limit:{user:1}:default:leases") == 0


# How many at once


async def at_once(limiter: RateLimiter, count: int, most: int) -> tuple[int, int]:
    """How many of `count` requests at once had a place, and how many were under way at the same time."""
    allowed = under_way = greatest = 0

    async def request() -> None:
        nonlocal allowed, under_way, greatest
        async with limiter.places.place("user:1", "export", most) as entered:
            allowed += entered
            under_way += entered
            greatest = max(greatest, under_way)
            await asyncio.sleep(0.05)
            under_way -= entered

    await asyncio.gather(*(request() for _ in range(count)))
    return allowed, greatest


async def test_so_many_at_once_over_instances_and_again_when_those_are_done(
    client: RedisClient, server: RedisServer
) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    async with redis_client(server.url) as other_client:
        other = RateLimiter(other_client, local_share=0.5)
        for _ in range(2):
            found = await asyncio.gather(at_once(limiter, 20, 4), at_once(other, 20, 4))
            assert sum(allowed for allowed, _ in found) == 4
            await client.ping()
    assert await client.execute("ZCARD", "limit:{user:1}:export:places") == 0


async def test_a_place_of_a_process_that_died_lapses(client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    monkeypatch.setattr(concurrency, "PLACE_SECONDS", 0.2)
    monkeypatch.setattr(Places, "_leave", lambda *_: None)
    assert await at_once(limiter, 5, 4) == (4, 4)
    assert await at_once(limiter, 5, 4) == (0, 0)
    await asyncio.sleep(0.25)
    assert await at_once(limiter, 5, 4) == (4, 4)


async def test_without_redis_each_process_gives_its_share_of_the_places(client: RedisClient) -> None:
    limiter = RateLimiter(client, local_share=0.5)
    await client.aclose()
    assert await at_once(limiter, 20, 4) == (2, 2)
    assert await at_once(limiter, 20, 1) == (1, 1)


# The guarantee, over processes. Each tells when it asked and when it was answered; what was decided lies in between.


class Asked(NamedTuple):
    at: float
    answered: float
    allowed: bool


def run_process(url: str, shared: bool, pipe: Connection) -> None:
    asyncio.run(serve_schedules(url, shared, pipe))


async def serve_schedules(url: str, shared: bool, pipe: Connection) -> None:
    async with redis_client(url, timeout_seconds=5) as client:
        await client.ping()
        limiter = RateLimiter(client, local_share=0.5)
        giving_back = asyncio.create_task(limiter.run())
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            identity, rule, offsets = order
            buckets = LocalBuckets()
            found: list[Asked] = []

            async def ask(offset: float) -> None:
                await asyncio.sleep(offset)
                asked = time.time()
                if shared:
                    allowed = (await limiter.check(identity, rule)).allowed  # noqa: B023
                else:
                    allowed = buckets.charge(identity, rule).wait_us == 0  # noqa: B023
                found.append(Asked(asked, time.time(), allowed))  # noqa: B023

            await asyncio.gather(*map(ask, offsets))
            pipe.send(found)
        giving_back.cancel()
        await asyncio.wait([giving_back])


class Fleet:
    """Processes that ask at the times that they are given."""

    def __init__(self, url: str, *, shared: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for _ in range(PROCESSES):
            ours, theirs = context.Pipe()
            self.pipes.append(ours)
            self.processes.append(context.Process(target=run_process, args=(url, shared, theirs), daemon=True))
            self.processes[-1].start()
        self.orders = 0

    def ask(self, rule: LimitRule, schedules: list[list[float]]) -> list[Asked]:
        self.orders += 1
        for pipe, offsets in zip(self.pipes, schedules, strict=True):
            pipe.send((f"caller:{self.orders}", rule, offsets))
        return sorted(asked for pipe in self.pipes for asked in pipe.recv())

    def stop(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(10)


@pytest.fixture(scope="module")
def fleet(server: RedisServer) -> Iterator[Fleet]:
    fleet = Fleet(server.url, shared=True)
    yield fleet
    fleet.stop()


@pytest.fixture(scope="module")
def fleet_of_loners(server: RedisServer) -> Iterator[Fleet]:
    fleet = Fleet(server.url, shared=False)
    yield fleet
    fleet.stop()


def exceeds(found: list[Asked], limit: Limit) -> bool:
    """Whether more requests passed within some window for certain than burst + rate * t."""
    rate = limit.amount / limit.window_seconds
    passed = [asked for asked in found if asked.allowed]
    for start, _, _ in passed:
        ends = sorted(asked.answered for asked in passed if asked.at >= start)
        if any(count > limit.amount + rate * (end - start) for count, end in enumerate(ends, 1)):
            return True
    return False


def allowance(found: list[Asked], limit: Limit) -> int:
    """How many of these requests one bucket for all would have let pass, of the moments that are possible."""

    def passing(moments: list[float]) -> int:
        clock = iter(sorted(int(moment * 1e6) for moment in moments))
        buckets, rule = LocalBuckets(lambda: next(clock)), LimitRule("rule", (limit,))
        return sum(buckets.charge("caller", rule).wait_us == 0 for _ in moments)

    return min(passing([asked.at for asked in found]), passing([asked.answered for asked in found]))


def admitted(found: list[Asked]) -> int:
    return sum(asked.allowed for asked in found)


limits = st.builds(Limit, st.integers(1, 40), st.integers(1, 3))
offsets = st.lists(st.floats(0, 0.2), max_size=40)
schedules = st.lists(offsets, min_size=PROCESSES, max_size=PROCESSES)
SLOW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@SLOW
@given(limit=limits, schedules=schedules)
def test_over_processes_in_every_window_at_most_burst_and_rate(
    fleet: Fleet, limit: Limit, schedules: list[list[float]]
) -> None:
    found = fleet.ask(LimitRule("rule", (limit,)), schedules)
    assert not exceeds(found, limit)
    assert admitted(found) >= min(limit.amount, sum(map(len, schedules)))


# Of so many in a second, processes hold leases.
leased_limits = st.builds(Limit, st.integers(50, 1_000), st.just(1))
bursts = st.tuples(st.floats(0, 0.3), st.integers(1, 60))


@settings(SLOW, max_examples=8)
@given(limit=leased_limits, bursts=st.lists(st.lists(bursts, max_size=8), min_size=PROCESSES, max_size=PROCESSES))
def test_with_leases_the_same_bound_holds(fleet: Fleet, limit: Limit, bursts: list[list[tuple[float, int]]]) -> None:
    schedules = [[at + i * 0.001 for at, count in own for i in range(count)] for own in bursts]
    found = fleet.ask(LimitRule("rule", (limit,)), schedules)
    assert not exceeds(found, limit)
    assert admitted(found) >= 0.95 * allowance(found, limit) - 1


@settings(SLOW, max_examples=5)
@given(limit=limits, schedules=schedules)
def test_control_counters_of_each_process_exceed_it(
    fleet_of_loners: Fleet, limit: Limit, schedules: list[list[float]]
) -> None:
    flood = [offsets + [0.0] * (limit.amount + 1) for offsets in schedules]
    assert exceeds(fleet_of_loners.ask(LimitRule("rule", (limit,)), flood), limit)


@pytest.mark.parametrize("limit", [Limit(50, 1), Limit(300, 1)], ids=["request by request", "leased"])
async def test_over_processes_nearly_all_that_is_allowed_passes(fleet: Fleet, limit: Limit) -> None:
    flood = [[i * 0.003 for i in range(400)]] * PROCESSES  # 1,300 a second, for 1.2 s
    found = await asyncio.to_thread(fleet.ask, LimitRule("rule", (limit,)), flood)
    assert not exceeds(found, limit)
    assert admitted(found) >= 0.95 * allowance(found, limit)
