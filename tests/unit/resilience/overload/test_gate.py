import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.platform.resilience.overload import AdaptiveLimit, Criticality, Gate, Refused

CRITICAL, NORMAL, SHEDDABLE = Criticality


def new_gate(limit: int, *, max_waiting: int = 10, wait_seconds: float = 5.0, max_sheddable: int = 1_000) -> Gate:
    return Gate(
        AdaptiveLimit(least=limit, most=limit),
        max_waiting=max_waiting,
        wait_seconds=wait_seconds,
        max_sheddable=max_sheddable,
    )


@asynccontextmanager
async def inside(gate: Gate, *levels: Criticality) -> AsyncIterator[None]:
    for level in levels:
        await gate.enter(level)
    yield
    for level in levels:
        gate.leave(level, "/", None)


async def enter(gate: Gate, level: Criticality) -> asyncio.Task[None]:
    """One who waits."""
    task = asyncio.create_task(gate.enter(level))
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_who_has_no_place_gets_the_next_one() -> None:
    gate = new_gate(1)
    async with inside(gate, NORMAL):
        waiting = await enter(gate, NORMAL)
    await waiting
    assert (gate.in_flight, gate.waiting) == (1, 0)


async def test_who_waits_too_long_is_refused() -> None:
    gate = new_gate(1, wait_seconds=0.01)
    async with inside(gate, NORMAL):
        with pytest.raises(Refused, match="waited"):
            await gate.enter(NORMAL)
    assert (gate.in_flight, gate.waiting) == (0, 0)


async def test_a_full_queue_refuses_at_once() -> None:
    gate = new_gate(1, max_waiting=1)
    async with inside(gate, NORMAL):
        waiting = await enter(gate, NORMAL)
        with pytest.raises(Refused, match="full"):
            await gate.enter(NORMAL)
    await waiting


async def test_what_matters_more_goes_first() -> None:
    gate = new_gate(1)
    order: list[Criticality] = []

    async def one(level: Criticality) -> None:
        await gate.enter(level)
        order.append(level)
        gate.leave(level, "/", None)

    async with inside(gate, NORMAL, CRITICAL):
        tasks = [asyncio.create_task(one(level)) for level in (SHEDDABLE, NORMAL, CRITICAL, NORMAL)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == [CRITICAL, NORMAL, NORMAL, SHEDDABLE]


async def test_it_takes_the_place_in_the_queue_of_what_matters_less() -> None:
    gate = new_gate(1, max_waiting=1)
    async with inside(gate, CRITICAL, CRITICAL):
        displaced = await enter(gate, SHEDDABLE)
        waiting = await enter(gate, NORMAL)
        with pytest.raises(Refused, match="displaced"):
            await displaced
        assert gate.waiting == 1
    await waiting


async def test_the_sheddable_never_have_more_than_half() -> None:
    gate = new_gate(4)
    async with inside(gate, SHEDDABLE, SHEDDABLE):
        waiting = await enter(gate, SHEDDABLE)
        async with inside(gate, NORMAL, NORMAL):
            assert gate.in_flight == 4
    await waiting


async def test_the_sheddable_never_have_more_than_their_share_of_the_pool() -> None:
    gate = new_gate(100, max_sheddable=2)
    async with inside(gate, SHEDDABLE, SHEDDABLE):
        waiting = await enter(gate, SHEDDABLE)
        async with inside(gate, *[NORMAL] * 50):
            assert gate.in_flight == 52
    await waiting


async def test_some_places_are_kept_for_the_critical() -> None:
    gate = new_gate(10)
    async with inside(gate, *[NORMAL] * 10, CRITICAL):
        assert gate.in_flight == 11


async def test_who_leaves_the_queue_leaves_nothing_behind() -> None:
    gate = new_gate(1)
    async with inside(gate, NORMAL):
        for task in [await enter(gate, NORMAL) for _ in range(5)]:
            task.cancel()
            await asyncio.wait([task])
        assert gate.waiting == 0
    async with inside(gate, NORMAL):
        assert gate.in_flight == 1


async def test_who_is_let_in_and_cancelled_at_once_gives_the_place_back() -> None:
    gate = new_gate(1)
    async with inside(gate, NORMAL):
        first, second = await enter(gate, NORMAL), await enter(gate, NORMAL)
    first.cancel()
    await asyncio.wait([first])
    await second
    assert (gate.in_flight, gate.waiting) == (1, 0)
