import asyncio
import logging

import pytest

from app.platform.resilience.background import in_background


async def ends() -> None:
    pass


async def fails() -> None:
    raise ZeroDivisionError


async def test_it_goes_on_until_the_block_ends_and_the_last_ends_first() -> None:
    ended = []

    async def goes_on(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(number)

    async with in_background(goes_on(1), goes_on(2)):
        await asyncio.sleep(0)
        assert ended == []
    assert ended == [2, 1]


async def test_it_ends_with_a_block_that_fails() -> None:
    started = asyncio.Event()

    async def goes_on() -> None:
        started.set()
        await asyncio.sleep(60)

    async def begin_and_fail() -> None:
        async with in_background(goes_on()):
            await started.wait()
            await fails()

    with pytest.raises(ZeroDivisionError):
        await begin_and_fail()
    assert len(asyncio.all_tasks()) == 1


async def test_one_that_fails_is_told_of_at_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with in_background(ends(), fails()):
            await asyncio.sleep(0.01)
            assert len(caplog.records) == 1
            assert "fails" in caplog.records[0].getMessage()
            assert caplog.records[0].exc_info is not None


async def test_control_a_bare_task_fails_and_nobody_hears(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        task = asyncio.create_task(fails())
        await asyncio.sleep(0.01)
        assert caplog.records == []
    assert isinstance(task.exception(), ZeroDivisionError)
