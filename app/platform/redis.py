"""Redis, for all that the service can do without.

One connection per process carries all commands: those issued in one turn of the event loop leave together, and answers
are matched in order. That costs a tenth of taking a connection from a pool for each command, and nobody waits for one.

A command waits at most the timeout in all, for the connection, in the queue and for its answer, and fails at once while
the breaker is open: a dead or frozen Redis piles up nothing. Nothing is sent twice: a command whose answer is lost may
have had its effect, and only its caller knows if that matters.

Keys that one command or script uses together share a hash tag (`cache:{tenant}:...`), so that they lie in one slot of a
Redis Cluster (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).
"""

import asyncio
import hashlib
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

from hiredis import pack_command
from prometheus_client import Counter, Histogram
from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from app.platform.resilience.breaker import CircuitBreaker, State
from app.platform.telemetry.redis_calls import watch_command

MAX_OUTSTANDING = 10_000
MAX_PIPELINE = 500
GRACE = 0.1  # of the timeout: its last part, in which a late event loop may catch up
GRACE_TURNS = 3

PIPELINE_SECONDS = Histogram(
    "redis_pipeline_seconds",
    "From issuing a pipeline's first command to having its answer",
    buckets=(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)
PIPELINE_COMMANDS = Histogram(
    "redis_pipeline_commands", "Commands that left together", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
)
UNAVAILABLE = Counter("redis_unavailable_total", "Commands that had no answer", ["reason"])

Argument = str | bytes | int | float


class RedisUnavailable(RedisError):
    """No answer: Redis is away, too slow, or not asked since it was just now. The command may have had its effect."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        UNAVAILABLE.labels(reason).inc()


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


class _Command(NamedTuple):
    packed: bytes
    answer: asyncio.Future[Any]
    issued_at: float  # the loop's time

    def settle(self, answer: object) -> None:
        if self.answer.done():  # the caller was cancelled
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
            self.answer.exception()  # seen, as far as asyncio is concerned: nobody has to wait for it
        else:
            self.answer.set_result(answer)


def connections_to(url: str, timeout_seconds: float) -> Callable[[], Connection]:
    factory = ConnectionPool.from_url(
        url,
        socket_connect_timeout=timeout_seconds,
        socket_timeout=None,  # each command has its own time
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    made: Callable[[], Connection] = factory.make_connection
    return made


class RedisClient:
    """A client for one event loop. Connects when it is first asked, and again whenever the connection was lost."""

    def __init__(
        self, new_connection: Callable[[], Connection], *, timeout_seconds: float, breaker: CircuitBreaker
    ) -> None:
        self._new_connection = new_connection
        self._timeout_seconds = timeout_seconds
        self._breaker = breaker
        self._link: _Link | None = None
        self._closed = False

    @classmethod
    def from_url(cls, url: str, *, timeout_seconds: float, breaker: CircuitBreaker) -> Self:
        return cls(connections_to(url, timeout_seconds), timeout_seconds=timeout_seconds, breaker=breaker)

    def use_url(self, url: str) -> None:
        """For the next connection: a password was changed. The one that is open stays."""
        self._new_connection = connections_to(url, self._timeout_seconds)

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
        link = self._admit()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        watch_command(command, answer)
        link.enqueue(_Command(packed, answer, loop.time()))
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
        when there is no connection, or no longer.
        """
        connection = self._new_connection()

        async def next_push(seconds: float) -> Any:
            return await connection.read_response(timeout=seconds, push_request=True)

        async def next_message(seconds: float) -> Message:
            _, channel, data = await next_push(seconds)
            return Message(channel, data)

        try:
            await connection.connect()  # type: ignore[no-untyped-call]
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

    def _admit(self) -> "_Link":
        if self._closed:
            raise RedisUnavailable("closed")
        link = self._link
        if link is not None and len(link) >= MAX_OUTSTANDING:
            raise RedisUnavailable("queue_full")
        if not self._breaker.allow():
            raise RedisUnavailable("breaker_open")
        if link is None or link.is_over:
            link = self._link = _Link(self._new_connection(), self._timeout_seconds, self._breaker)
        return link


class _Link:
    """One connection, from its first command to its end. It ends when it breaks or when a command's time is over."""

    def __init__(self, connection: Connection, timeout_seconds: float, breaker: CircuitBreaker) -> None:
        self.is_up = False
        self.is_over = False
        self._connection = connection
        self._timeout_seconds = timeout_seconds
        self._breaker = breaker
        self._waiting: deque[_Command] = deque()
        self._sent: deque[_Command] = deque()
        self._work = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.Handle | None = None
        self._timed: _Command | None = None  # whose time is measured: one at a time
        self._task = self._loop.create_task(self._hold())

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    def enqueue(self, command: _Command) -> None:
        self._waiting.append(command)
        self._work.set()  # wakes the writer behind whatever else is ready now: that is what gathers a turn's commands
        if self._watch is None:
            self._watch = self._loop.call_at(self._due_at(command), self._look)

    async def aclose(self) -> None:
        if answers := [command.answer for command in (*self._sent, *self._waiting)]:
            await asyncio.wait(answers)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _hold(self) -> None:
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]
            self.is_up = True
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write())
                tasks.create_task(self._read())
        except Exception as error:
            self._end("connection", repr(error))
        finally:
            await self._connection.disconnect(nowait=True)

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while commands := self._take():
                PIPELINE_COMMANDS.observe(len(commands))
                self._timed = self._timed or commands[0]
                self._sent.extend(commands)
                packed = [command.packed for command in commands]
                await self._connection.send_packed_command(packed, check_health=False)

    async def _read(self) -> None:
        while True:
            try:
                answer = await self._connection.read_response(timeout=math.inf)
            except ResponseError as error:
                answer = error
            command = self._sent.popleft()
            command.settle(answer)
            self._breaker.succeeded()
            if command is self._timed:
                PIPELINE_SECONDS.observe(self._loop.time() - command.issued_at)
                self._timed = None

    def _take(self) -> list[_Command]:
        """The next commands to send, without those whose callers are gone."""
        commands: list[_Command] = []
        while self._waiting and len(commands) < MAX_PIPELINE:
            command = self._waiting.popleft()
            if not command.answer.done():
                commands.append(command)
        return commands

    def _oldest(self) -> _Command | None:
        return self._sent[0] if self._sent else self._waiting[0] if self._waiting else None

    def _due_at(self, command: _Command) -> float:
        return command.issued_at + self._timeout_seconds * (1 - GRACE)

    def _look(self) -> None:
        """One timer for all: look at the oldest command when its time is over."""
        oldest = self._oldest()
        if oldest is None:
            self._watch = None
        elif (due_at := self._due_at(oldest)) > self._loop.time():
            self._watch = self._loop.call_at(due_at, self._look)
        else:
            self._watch = self._loop.call_later(self._timeout_seconds * GRACE, self._look_again, oldest, GRACE_TURNS)

    def _look_again(self, oldest: _Command, turns: int) -> None:
        """The loop itself may have been late to send, or not have read what is there: let it, before giving up.

        A loop that does all timers before it reads, as uvloop does, needs some turns for that.
        """
        if self._oldest() is not oldest:
            self._look()
        elif turns:
            self._watch = self._loop.call_soon(self._look_again, oldest, turns - 1)
        else:
            self._end("timeout")
            self._task.cancel()

    def _end(self, reason: str, detail: str = "") -> None:
        self.is_up, self.is_over = False, True
        if self._watch is not None:
            self._watch.cancel()
        commands = [*self._sent, *self._waiting]
        self._sent.clear()
        self._waiting.clear()
        for command in commands:
            self._breaker.failed()
            command.settle(RedisUnavailable(reason, detail))
