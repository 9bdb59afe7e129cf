"""A Redis of a test's own, to freeze and kill."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from app.platform.redis import RedisClient, RedisUnavailable, redis_from_url
from app.platform.resilience.breaker import CircuitBreaker
from deploy.local import redis
from tests.support.stack import Service, free_ports

TIMEOUT_SECONDS = 0.1
OPEN_SECONDS = 0.2


class RedisServer(Service):
    url: str
    port: int


@contextmanager
def redis_server(folder: Path, *options: str, port: int = 0) -> Iterator[RedisServer]:
    port = port or free_ports(1)[0]
    command = ["redis-server", "--port", str(port), "--bind", redis.HOST, "--dir", str(folder), "--save", "", *options]
    log = folder / f"redis-{port}.log"
    server = RedisServer("redis", command, lambda: redis.is_ready(port), log, as_service=False)
    server.url, server.port = redis.url(port), port
    server.start()
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def redis_client(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> AsyncIterator[RedisClient]:
    """A client that gives up soon, and whose event loop may see no error that nobody handles."""
    unhandled: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    client = redis_from_url(
        url, timeout_seconds=timeout_seconds, new_breaker=lambda name: CircuitBreaker(3, OPEN_SECONDS, name=name)
    )
    try:
        yield client
    finally:
        await client.aclose()
    assert not unhandled


async def until_back(client: RedisClient) -> None:
    """Wait until the breaker has let a probe through and it was answered."""
    await eventually(partial(is_up, client))


async def is_up(client: RedisClient) -> bool:
    try:
        await client.ping()
    except RedisUnavailable:
        return False
    return True


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Within so many seconds."""
    for _ in range(int(seconds * 50)):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError("it has not come about")
