import asyncio

import pytest

from app.platform.cache.single_flight import SingleFlight


class Work:
    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.started += 1
        number = self.started
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_all_that_ask_at_once_get_the_same() -> None:
    flights, work = SingleFlight[int](), Work()
    callers = [asyncio.create_task(flights.run("key", work)) for _ in range(10)]
    other = asyncio.create_task(flights.run("other", work))
    await turns()
    work.go.set()
    assert await asyncio.gather(*callers) == [1] * 10
    assert await other == 2
    assert "key" not in flights


async def test_who_comes_later_starts_anew() -> None:
    flights, work = SingleFlight[int](), Work()
    work.go.set()
    assert [await flights.run("key", work) for _ in range(3)] == [1, 2, 3]


async def test_the_flight_goes_on_without_the_one_who_started_it() -> None:
    flights, work = SingleFlight[int](), Work()
    first, second = (asyncio.create_task(flights.run("key", work)) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    work.go.set()
    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_work_that_nobody_waits_for_is_cancelled_and_not_joined() -> None:
    flights, work = SingleFlight[int](), Work()
    callers = [asyncio.create_task(flights.run("key", work)) for _ in range(2)]
    await turns()
    for caller in callers:
        caller.cancel()
    await turns()
    assert work.cancelled == 1
    work.go.set()
    assert await flights.run("key", work) == 2


async def test_an_exception_is_everybodys() -> None:
    async def fails() -> int:
        await asyncio.sleep(0)
        raise LookupError("none")

    flights = SingleFlight[int]()
    outcomes = await asyncio.gather(*(flights.run("key", fails) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LookupError] * 3
    assert "key" not in flights
