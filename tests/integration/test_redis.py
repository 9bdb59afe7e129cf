import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ResponseError

from app.platform.redis import RedisClient, RedisUnavailable, Script, link
from app.platform.redis import client as module
from tests.support.redis_server import (
    OPEN_SECONDS,
    TIMEOUT_SECONDS,
    RedisServer,
    redis_client,
    redis_server,
    until_back,
)

SLACK_SECONDS = 5.0  # for a busy machine; a client that waits and repeats by default takes longer
OTHERS = 20  # commands: those of applications that other tests have left running in this process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[RedisClient]:
    async with redis_client(server.url) as client:
        await client.execute("FLUSHALL")
        yield client


def pipelines() -> tuple[float, float]:
    """How many there were, and how many commands were in them."""
    count = REGISTRY.get_sample_value("redis_pipeline_commands_count")
    total = REGISTRY.get_sample_value("redis_pipeline_commands_sum")
    return count or 0, total or 0


async def outcome(client: RedisClient, *arguments: str) -> tuple[object, float]:
    """The answer or the exception, and the seconds that it took."""
    started = time.monotonic()
    try:
        answer = await client.execute(*arguments)
    except RedisUnavailable as error:
        answer = error
    return answer, time.monotonic() - started


async def test_commands_of_one_turn_leave_together(client: RedisClient) -> None:
    before = pipelines()
    answers = await asyncio.gather(*(client.execute("INCR", "counter") for _ in range(100)))
    after = pipelines()
    assert answers == list(range(1, 101))
    assert after[1] - before[1] >= 100
    assert after[0] - before[0] <= 1 + OTHERS


async def test_coalescing_is_at_least_twice_as_fast_as_a_pool(client: RedisClient, server: RedisServer) -> None:
    pool = BlockingConnectionPool.from_url(server.url, max_connections=20, timeout=5)
    plain = Redis.from_pool(pool)
    await client.execute("SET", "key", "x" * 1_000)

    async def seconds(get: object) -> float:
        async def caller() -> None:
            for _ in range(50):
                await get("key")  # type: ignore[operator]

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(32)))
        return time.perf_counter() - started

    try:
        ratios = [await seconds(plain.get) / await seconds(lambda key: client.execute("GET", key)) for _ in range(3)]
    finally:
        await plain.aclose()
    assert sorted(ratios)[1] > 2, ratios


async def test_an_error_is_for_its_own_caller(client: RedisClient) -> None:
    await client.execute("SET", "text", "abc")
    answers = await asyncio.gather(
        client.execute("GET", "text"),
        client.execute("INCR", "text"),
        client.execute("GET", "\ud800"),
        client.execute("GET", "text"),
        return_exceptions=True,
    )
    assert answers[0] == answers[3] == b"abc"
    assert isinstance(answers[1], ResponseError)
    assert isinstance(answers[2], UnicodeEncodeError)
    assert client.stats().breaker == "closed"


async def test_a_script_that_redis_has_forgotten_is_sent_again(client: RedisClient) -> None:
    script = Script("return {KEYS[1], ARGV[1]}")
    assert await client.run(script, ["key"], [1]) == [b"key", b"1"]
    await client.execute("SCRIPT", "FLUSH")
    assert await client.run(script, ["key"], [2]) == [b"key", b"2"]


async def test_a_caller_that_is_gone_disturbs_nobody(client: RedisClient) -> None:
    gone = asyncio.create_task(client.execute("SET", "gone", "1"))
    stays = asyncio.create_task(client.execute("GET", "absent"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays is None
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert client.stats() == ("closed", True, 0)


async def test_frozen_every_command_fails_in_time_and_nothing_piles_up(
    client: RedisClient, server: RedisServer
) -> None:
    await asyncio.gather(*(client.execute("SET", f"key:{i}", i) for i in range(300)))
    server.freeze()
    try:
        tasks = []
        for i in range(300):  # over many turns: some are sent, some wait
            tasks.append(asyncio.create_task(outcome(client, "GET", f"key:{i}")))
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*tasks)
        assert all(isinstance(answer, RedisUnavailable) for answer, _ in outcomes)
        assert max(seconds for _, seconds in outcomes) < TIMEOUT_SECONDS + SLACK_SECONDS

        answer, _ = await outcome(client, "GET", "key:0")
        assert str(answer) == "breaker_open"
        await asyncio.sleep(0)
        assert client.stats() == ("open", False, 0)
    finally:
        server.thaw()
    await until_back(client)
    answers = await asyncio.gather(*(client.execute("GET", f"key:{i}") for i in range(300)))
    assert answers == [str(i).encode() for i in range(300)]  # no answer of before the freeze is taken for a later one


async def test_one_timeout_is_enough_and_nobody_waits_for_a_probe(client: RedisClient, server: RedisServer) -> None:
    await client.ping()
    server.freeze()
    try:
        answer, _ = await outcome(client, "PING")
        assert str(answer) == "timeout"
        assert client.stats().breaker == "open"
        await asyncio.sleep(OPEN_SECONDS * 1.1)
        assert client.stats().breaker == "half_open"
        for _ in range(50):
            with pytest.raises(RedisUnavailable, match="breaker_open"):
                client.submit("PING")
        assert client.stats().outstanding == 1
    finally:
        server.thaw()
    await until_back(client)


@pytest.mark.parametrize("grace", [True, False])
async def test_a_loop_that_was_late_itself_blames_nobody(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch, grace: bool
) -> None:
    """Control: without the grace, what could not be sent or read in time is given up."""
    if not grace:
        monkeypatch.setattr(link, "GRACE", 0)
        monkeypatch.setattr(link, "GRACE_TURNS", 0)
    await client.ping()
    for _ in range(5):
        asked = asyncio.create_task(outcome(client, "PING"))
        await asyncio.sleep(0)
        time.sleep(TIMEOUT_SECONDS * 2)  # noqa: ASYNC251
        answer, _ = await asked
        assert (answer == b"PONG") == grace
    assert (client.stats().breaker == "closed") == grace


async def test_killed_it_fails_at_once_and_comes_back(client: RedisClient, server: RedisServer) -> None:
    server.kill()
    try:
        for _ in range(5):
            answer, seconds = await outcome(client, "PING")
            assert isinstance(answer, RedisUnavailable)
            assert seconds < TIMEOUT_SECONDS + SLACK_SECONDS
    finally:
        server.start()
    await until_back(client)
    assert await client.execute("GET", "anything") is None


async def test_a_command_whose_answer_is_lost_is_not_repeated(client: RedisClient, server: RedisServer) -> None:
    server.freeze()
    try:
        with pytest.raises(RedisUnavailable):
            await client.execute("INCR", "effect")
    finally:
        server.thaw()
    await until_back(client)
    assert await client.execute("GET", "effect") in (None, b"1")


async def test_a_connection_that_redis_has_closed_costs_no_command(client: RedisClient) -> None:
    await client.ping()
    await client.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
    await asyncio.sleep(0.05)
    await asyncio.gather(*(client.ping() for _ in range(10)))
    assert client.stats().breaker == "closed"


async def test_a_channel_that_is_silent_is_a_timeout_and_a_message_comes_through(client: RedisClient) -> None:
    async with client.subscription("news") as next_message:
        with pytest.raises(TimeoutError):
            await next_message(0.05)
        await client.execute("PUBLISH", "news", "something")
        assert (await next_message(5)).data == b"something"


async def test_the_queue_is_bounded(client: RedisClient, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OUTSTANDING", 10)
    outcomes = await asyncio.gather(*(outcome(client, "PING") for _ in range(30)))
    assert sum(str(answer) == "queue_full" for answer, _ in outcomes) == 20


async def test_closed_in_the_midst_of_work_it_answers_what_it_has_taken(server: RedisServer) -> None:
    async with redis_client(server.url) as client:
        answers = [asyncio.create_task(client.execute("PING")) for _ in range(10)]
        await asyncio.sleep(0)
        await client.aclose()
        assert await asyncio.gather(*answers) == [b"PONG"] * 10
        with pytest.raises(RedisUnavailable, match="closed"):
            await client.execute("PING")


async def test_closed_while_frozen_it_does_not_hang(server: RedisServer) -> None:
    async with redis_client(server.url) as client:
        await client.ping()
        server.freeze()
        try:
            answer = asyncio.create_task(outcome(client, "PING"))
            await asyncio.sleep(0)
            started = time.monotonic()
            await client.aclose()
            assert time.monotonic() - started < TIMEOUT_SECONDS + SLACK_SECONDS
            assert isinstance((await answer)[0], RedisUnavailable)
        finally:
            server.thaw()
    gc.collect()
