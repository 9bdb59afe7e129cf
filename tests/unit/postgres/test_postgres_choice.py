"""The choice of a replica: what is eligible, by how much it has to do, and who waits for it. No server is needed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from app.platform.postgres.errors import DatabaseUnavailable
from app.platform.postgres.lag import PrimaryHistory
from app.platform.postgres.monitor import Monitor
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.positions import pack
from app.platform.postgres.primary import Primary
from app.platform.postgres.probe import Sample
from app.platform.postgres.replica import Replica, State
from app.platform.postgres.routing import ReadRoute, Router
from app.platform.postgres.slots import Slots
from app.platform.postgres.waiting import MAX_WAITERS, PositionWaiters

URL = "postgresql+asyncpg://headroom@127.0.0.1:1/headroom"
OPTIONS = DatabaseOptions(URL, replica_urls=(URL, URL, URL), readmit_seconds=0.2, max_lag_seconds=2.0)


def sample(lsn: int, *, in_recovery: bool = True, round_trip: float = 0.001) -> Sample:
    return Sample(in_recovery, pack(1, lsn), 0.0, round_trip, ("127.0.0.1", 1))


@pytest.fixture
async def replicas() -> AsyncIterator[list[Replica]]:
    made = [Replica(name, URL, OPTIONS) for name in ("one", "two", "three")]
    for replica in made:
        replica.seen(sample(100), pack(1, 100), PrimaryHistory())
    yield made
    for replica in made:
        await replica.aclose()


@pytest.fixture
async def router(replicas: list[Replica]) -> AsyncIterator[Router]:
    primary = Primary(OPTIONS)
    yield Router(Monitor(primary, replicas, OPTIONS), primary.reader, OPTIONS)
    await primary.aclose()


async def test_the_busiest_is_never_chosen_and_the_load_is_spread(router: Router, replicas: list[Replica]) -> None:
    replicas[0].in_use = 10
    chosen = Counter([(await router.choose(0)).name for _ in range(300)])
    assert chosen["one"] == 0
    assert min(chosen["two"], chosen["three"]) > 90


async def test_sessions_that_open_together_spread_evenly(router: Router) -> None:
    routes = [ReadRoute(router, await router.choose(0), 0) for _ in range(300)]
    load = Counter(route.server.name for route in routes)
    assert max(load.values()) - min(load.values()) <= 10


async def test_a_slower_server_is_preferred_only_when_less_busy(router: Router, replicas: list[Replica]) -> None:
    replicas[0].seen(sample(100, round_trip=0.1), pack(1, 100), PrimaryHistory())
    assert "one" not in {(await router.choose(0)).name for _ in range(100)}
    replicas[1].in_use = replicas[2].in_use = 5
    assert "one" in {(await router.choose(0)).name for _ in range(100)}


async def test_only_replicas_at_the_required_position_are_chosen(router: Router, replicas: list[Replica]) -> None:
    replicas[2].seen(sample(200), pack(1, 200), PrimaryHistory())
    assert {(await router.choose(pack(1, 150))).name for _ in range(100)} == {"three"}


async def test_a_position_that_no_replica_reaches_in_time_is_read_from_the_primary(router: Router) -> None:
    started = asyncio.get_running_loop().time()
    assert (await router.choose(pack(1, 999))).name == "primary-read"
    assert asyncio.get_running_loop().time() - started < 1


async def test_nobody_waits_for_replicas_that_lag_more_than_the_wait(router: Router, replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.lag_seconds = 0.3
    started = asyncio.get_running_loop().time()
    assert (await router.choose(pack(1, 999))).name == "primary-read"
    assert asyncio.get_running_loop().time() - started < OPTIONS.consistency_wait_seconds


async def test_without_replicas_the_primary_answers(router: Router, replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.eject("test")
    assert (await router.choose(0)).name == "primary-read"


async def test_an_ejected_replica_comes_back_after_a_while_of_being_well(replicas: list[Replica]) -> None:
    one = replicas[0]
    one.eject("test")
    assert (one.state, one.position) == (State.DOWN, 0)
    one.seen(sample(100), pack(1, 100), PrimaryHistory())
    assert not one.eligible
    await asyncio.sleep(OPTIONS.readmit_seconds * 1.5)
    one.seen(sample(100), pack(1, 100), PrimaryHistory())
    assert one.eligible


async def test_a_promoted_replica_gets_no_reads_as_a_replica(replicas: list[Replica]) -> None:
    replicas[0].seen(sample(100, in_recovery=False), pack(1, 100), PrimaryHistory())
    assert (replicas[0].state, replicas[0].eligible) == (State.PROMOTED, False)


async def test_waiters_are_woken_by_a_position_that_covers_theirs() -> None:
    waiters = PositionWaiters()
    waits = [asyncio.create_task(waiters.wait(pack(1, lsn), 0.3)) for lsn in (100, 200, 300)]
    await asyncio.sleep(0)
    waiters.announce(pack(1, 200))
    assert await asyncio.gather(*waits) == [True, True, False]
    assert len(waiters) == 0


async def test_waiters_are_bounded_in_number() -> None:
    waiters = PositionWaiters()
    waits = [asyncio.create_task(waiters.wait(pack(1, 1), 0.2)) for _ in range(MAX_WAITERS)]
    await asyncio.sleep(0)
    started = asyncio.get_running_loop().time()
    assert not await waiters.wait(pack(1, 1), 60)
    assert asyncio.get_running_loop().time() - started < 1
    assert not any(await asyncio.gather(*waits))


async def test_slots_are_given_in_order() -> None:
    slots = Slots(1)
    await slots.take(1)
    order: list[int] = []

    async def wait(number: int) -> None:
        await slots.take(1)
        order.append(number)
        slots.give_back()

    waits = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    slots.give_back()
    await asyncio.gather(*waits)
    assert (order, slots.taken) == ([0, 1, 2, 3, 4], 0)


async def test_a_wait_for_a_slot_is_bounded_and_leaves_nothing_behind() -> None:
    slots = Slots(1)
    await slots.take(1)
    with pytest.raises(TimeoutError):
        await slots.take(0.01)
    slots.give_back()
    await slots.take(0.01)


async def test_a_slot_given_to_one_who_just_left_is_not_lost() -> None:
    slots = Slots(1)
    await slots.take(1)
    leaving = asyncio.create_task(slots.take(1))
    await asyncio.sleep(0)
    slots.give_back()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert slots.taken == 0


async def test_all_who_wait_can_be_sent_away() -> None:
    slots = Slots(1)
    await slots.take(1)
    waits = [asyncio.create_task(slots.take(1)) for _ in range(3)]
    await asyncio.sleep(0)
    slots.refuse(DatabaseUnavailable("gone"))
    outcomes = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 3
    slots.give_back()
    assert slots.taken == 0
