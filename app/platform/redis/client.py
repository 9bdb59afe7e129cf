"""The client of one Redis, wherever that is at the moment."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from hiredis import pack_command
from redis.exceptions import NoScriptError

from app.platform.redis.link import Connect, Link, RedisUnavailable
from app.platform.redis.urls import connect_by
from app.platform.resilience.breaker import CircuitBreaker, State
from app.platform.telemetry.redis_calls import watch_command

MAX_OUTSTANDING = 10_000
PING = pack_command(("PING",))

Argument = str | bytes | int | float


def sortable(number: int) -> str:
    """As text that sorts like the number, up to 128 bits: the numbers of a script end at 2^53."""
    return f"{number:032x}"


class Script:
    """A Lua script, known to Redis by its digest."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class Message(NamedTuple):
    channel: bytes
    data: bytes


class RedisStats(NamedTuple):
    breaker: State
    connected: bool
    outstanding: int  # commands that wait for their answer


class RedisClient:
    """A client for one event loop. Connects when it is first asked, and again whenever the connection was lost."""

    is_cluster = False

    def __init__(self, connect: Connect, *, timeout_seconds: float, breaker: CircuitBreaker) -> None:
        self._connect = connect
        self._timeout_seconds = timeout_seconds
        self._breaker = breaker
        self._link: Link | None = None
        self._closed = False

    def use_url(self, url: str) -> None:
        """For the next connection: a password was changed. The one that is open stays."""
        self._connect = connect_by(url, self._timeout_seconds)

    async def execute(self, command: str, *arguments: Argument) -> Any:
        """Send one command; its answer is as the server gives it (RESP3), strings as bytes.

        Raises `RedisUnavailable`, or `redis.exceptions.ResponseError` when the server refuses the command; both are
        `redis.exceptions.RedisError`.
        """
        return await self.submit(command, *arguments)

    def submit(self, command: str, *arguments: Argument) -> asyncio.Future[Any]:
        """The same without waiting: what one coroutine submits before it first waits leaves together.

        Raises `RedisUnavailable` at once, or the answer does. An answer need not be waited for.
        """
        packed = pack_command((command, *arguments))  # type: ignore[arg-type]  # its stub says a tuple of one
        answer = self._admit().enqueue(packed)
        watch_command(command, answer)
        return answer

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Any:
        """Run a script by its digest; one that Redis does not know (so that nothing has run) is sent whole."""
        try:
            return await self.execute("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self.execute("EVAL", script.source, len(keys), *keys, *arguments)

    @asynccontextmanager
    async def subscription(self, *channels: str) -> AsyncIterator[Callable[[float], Awaitable[Message]]]:
        """Messages of these channels, on a connection of its own; none is missed within the block.

        Gives what waits for the next one, as many seconds as it is told. Raises RedisError, OSError or TimeoutError
        when there is no connection, no longer, or no message in that time.
        """
        connection = await self._connect()

        async def next_push(seconds: float) -> Any:
            push = await connection.read_response(timeout=seconds, push_request=True)
            if push is None:  # which is how redis-py says that the time is over
                raise TimeoutError("no message")
            return push

        async def next_message(seconds: float) -> Message:
            _, channel, data = await next_push(seconds)
            return Message(channel, data)

        try:
            await connection.send_command("SUBSCRIBE", *channels)
            for _ in channels:
                await next_push(self._timeout_seconds)
            yield next_message
        finally:
            await connection.disconnect(nowait=True)

    async def ping(self) -> float:
        """Seconds to an answer and back."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self.execute("PING")
        return loop.time() - started

    def stats(self) -> RedisStats:
        connected = self._link is not None and self._link.is_up
        return RedisStats(self._breaker.state, connected, 0 if self._link is None else len(self._link))

    async def aclose(self) -> None:
        """Refuse new commands, let those under way finish in their time, and disconnect."""
        self._closed = True
        if self._link is not None:
            await self._link.aclose()

    def _admit(self) -> Link:
        if self._closed:
            raise RedisUnavailable("closed")
        if self._link is not None and len(self._link) >= MAX_OUTSTANDING:
            raise RedisUnavailable("queue_full")
        if self._breaker.state != "closed":
            if self._breaker.allow():
                self._current_link().enqueue(PING)  # nobody waits for the probe: who asks meanwhile goes on without
            raise RedisUnavailable("breaker_open")
        return self._current_link()

    def _current_link(self) -> Link:
        if self._link is None or self._link.is_over:
            self._link = Link(self._connect, self._timeout_seconds, self._breaker)
        return self._link
