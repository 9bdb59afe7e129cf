"""Redis, for all that the service can do without.

Commands issued in one turn of the event loop leave together, as one pipeline on one connection: a fifth of the cost of
a connection from the pool for each. A command waits at most the timeout in all, whether for a connection, in the queue
or for its answer, and fails at once while the breaker is open, so a dead or frozen Redis piles up nothing.

Nothing is sent twice: a command whose answer is lost may have had its effect; only its caller knows if that matters.

Keys that one command or script uses together share a hash tag (`cache:{tenant}:...`), so that they lie in one slot of a
Redis Cluster (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, cast

from prometheus_client import Counter, Histogram
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.maint_notifications import MaintNotificationsConfig

from app.platform.resilience.breaker import CircuitBreaker, State

MAX_WAITING = 10_000
MAX_PIPELINE = 500
CLOSE_SECONDS = 1.0

PIPELINE_SECONDS = Histogram(
    "redis_pipeline_seconds",
    "From taking a pipeline's commands to having their answers",
    buckets=(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)
PIPELINE_COMMANDS = Histogram(
    "redis_pipeline_commands", "Commands that left together", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
)
UNAVAILABLE = Counter("redis_unavailable_total", "Commands that had no answer", ["reason"])

Argument = str | bytes | int | float


class RedisUnavailable(RedisError):
    """No answer: Redis is away, too slow, or not asked since it was just now. The command may have had its effect."""


class Script:
    """A Lua script, known to Redis by its digest."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class RedisStats(NamedTuple):
    breaker: State
    waiting: int  # commands that have not been sent yet
    connections: int  # pipelines under way


class _Command(NamedTuple):
    arguments: tuple[bytes, ...]
    answer: asyncio.Future[Any]
    queued_at: float  # the loop's time

    def settle(self, answer: object) -> None:
        if self.answer.done():  # the caller was cancelled
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class RedisClient:
    """A client that coalesces, made for one event loop."""

    def __init__(self, client: Redis, *, max_connections: int, timeout_seconds: float, breaker: CircuitBreaker) -> None:
        self._client = client
        self._max_connections = max_connections
        self._timeout_seconds = timeout_seconds
        self._breaker = breaker
        self._waiting: deque[_Command] = deque()
        self._senders: set[asyncio.Task[None]] = set()
        self._sender_starting = False
        self._closed = False

    @classmethod
    def from_url(cls, url: str, max_connections: int, timeout_seconds: float, breaker: CircuitBreaker) -> Self:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            socket_timeout=None,  # the pipeline as a whole has a timeout; one for each answer costs 3 µs a command
            retry=Retry(NoBackoff(), 0),
            # While they are on, redis-py 8.1 hands out connections that the server has closed.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        return cls(
            Redis.from_pool(pool), max_connections=max_connections, timeout_seconds=timeout_seconds, breaker=breaker
        )

    async def execute(self, command: str, *arguments: Argument) -> Any:
        """Send one command; its answer is as the server gives it (RESP3), strings as bytes.

        Raises `RedisUnavailable`, or `redis.exceptions.ResponseError` when the server refuses the command; both are
        `redis.exceptions.RedisError`.
        """
        # Encoded here, so that what can't be encoded fails its own caller and not the whole pipeline.
        encoded = tuple(a if isinstance(a, bytes) else str(a).encode() for a in (command, *arguments))
        self._admit()
        loop = asyncio.get_running_loop()
        queued = _Command(encoded, loop.create_future(), loop.time())
        self._waiting.append(queued)
        self._start_sender()
        return await queued.answer

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Any:
        """Run a script by its digest; one that Redis does not know (so that nothing has run) is sent whole."""
        try:
            return await self.execute("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self.execute("EVAL", script.source, len(keys), *keys, *arguments)

    async def ping(self) -> float:
        """Seconds to an answer and back."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self.execute("PING")
        return loop.time() - started

    def stats(self) -> RedisStats:
        return RedisStats(self._breaker.state, len(self._waiting), len(self._senders))

    async def aclose(self) -> None:
        """Refuse new commands, let those under way finish in their time, and disconnect."""
        self._closed = True
        if self._senders:
            await asyncio.wait(self._senders)
        async with asyncio.timeout(CLOSE_SECONDS):
            await self._client.aclose()

    def _admit(self) -> None:
        if self._closed:
            reason = "closed"
        elif len(self._waiting) >= MAX_WAITING:
            reason = "queue_full"
        elif not self._breaker.allow():
            reason = "breaker_open"
        else:
            return
        UNAVAILABLE.labels(reason).inc()
        raise RedisUnavailable(reason)

    def _start_sender(self) -> None:
        """A task takes its first step after the handlers that are ready now: that is what gathers a turn's commands."""
        if self._sender_starting or len(self._senders) >= self._max_connections:
            return
        self._sender_starting = True
        sender = asyncio.create_task(self._send_waiting())
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

    async def _send_waiting(self) -> None:
        self._sender_starting = False
        while commands := self._take():
            await self._send(commands)

    def _take(self) -> list[_Command]:
        """The next commands to send, without those whose callers are gone."""
        commands: list[_Command] = []
        while self._waiting and len(commands) < MAX_PIPELINE:
            command = self._waiting.popleft()
            if not command.answer.done():
                commands.append(command)
        return commands

    async def _send(self, commands: list[_Command]) -> None:
        answers: Sequence[object]
        try:
            # The oldest command's time holds for all: the younger ones fail early only when Redis is that slow.
            async with asyncio.timeout_at(commands[0].queued_at + self._timeout_seconds):
                answers = await self._pipeline([command.arguments for command in commands])
        except Exception as error:
            self._breaker.failed()
            UNAVAILABLE.labels("timeout" if isinstance(error, TimeoutError) else "connection").inc(len(commands))
            answers = [RedisUnavailable(str(error) or type(error).__name__) for _ in commands]
        else:
            self._breaker.succeeded()
        for command, answer in zip(commands, answers, strict=True):
            command.settle(answer)

    async def _pipeline(self, commands: list[tuple[bytes, ...]]) -> list[object]:
        PIPELINE_COMMANDS.observe(len(commands))
        with PIPELINE_SECONDS.time():
            pipeline = self._client.pipeline(transaction=False)
            for arguments in commands:
                pipeline.execute_command(*arguments)
            return cast(list[object], await pipeline.execute(raise_on_error=False))
