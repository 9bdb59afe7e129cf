"""One connection to a server, and the commands that are under way on it."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from prometheus_client import Counter, Histogram
from redis.asyncio import Connection
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from app.platform.resilience.breaker import CircuitBreaker

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

Connect = Callable[[], Awaitable[Connection]]  # to whoever serves now: raises RedisError, OSError or TimeoutError


class RedisUnavailable(RedisError):
    """No answer: Redis is away, too slow, or not asked since it was just now. The command may have had its effect."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        UNAVAILABLE.labels(reason).inc()


class Command(NamedTuple):
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


class Link:
    """One connection, from its first command to its end. It ends when it breaks or when a command's time is over."""

    def __init__(self, connect: Connect, timeout_seconds: float, breaker: CircuitBreaker) -> None:
        self.is_up = False
        self.is_over = False
        self._connect = connect
        self._timeout_seconds = timeout_seconds
        self._breaker = breaker
        self._waiting: deque[Command] = deque()
        self._sent: deque[Command] = deque()
        self._work = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.Handle | None = None
        self._timed: Command | None = None  # whose time is measured: one at a time
        self._task = self._loop.create_task(self._hold())

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    def enqueue(self, packed: bytes) -> asyncio.Future[Any]:
        """A packed command's answer, which need not be waited for."""
        command = Command(packed, self._loop.create_future(), self._loop.time())
        self._waiting.append(command)
        self._work.set()  # wakes the writer behind whatever else is ready now: that is what gathers a turn's commands
        if self._watch is None:
            self._watch = self._loop.call_at(self._due_at(command), self._look)
        return command.answer

    async def aclose(self) -> None:
        if answers := [command.answer for command in (*self._sent, *self._waiting)]:
            await asyncio.wait(answers)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _hold(self) -> None:
        connection: Connection | None = None
        try:
            connection = await self._connect()
            self.is_up = True
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(connection))
                tasks.create_task(self._read(connection))
        except Exception as error:
            self._end("connection", repr(error))
        finally:
            if connection is not None:
                await connection.disconnect(nowait=True)

    async def _write(self, connection: Connection) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while commands := self._take():
                PIPELINE_COMMANDS.observe(len(commands))
                self._timed = self._timed or commands[0]
                self._sent.extend(commands)
                packed = [command.packed for command in commands]
                await connection.send_packed_command(packed, check_health=False)

    async def _read(self, connection: Connection) -> None:
        while True:
            try:
                answer = await connection.read_response(timeout=math.inf)
            except ReadOnlyError:  # no longer the one to write to: the next connection will find who is
                raise
            except ResponseError as error:
                answer = error
            command = self._sent.popleft()
            command.settle(answer)
            self._breaker.succeeded()
            if command is self._timed:
                PIPELINE_SECONDS.observe(self._loop.time() - command.issued_at)
                self._timed = None

    def _take(self) -> list[Command]:
        """The next commands to send, without those whose callers are gone."""
        commands: list[Command] = []
        while self._waiting and len(commands) < MAX_PIPELINE:
            command = self._waiting.popleft()
            if not command.answer.done():
                commands.append(command)
        return commands

    def _oldest(self) -> Command | None:
        return self._sent[0] if self._sent else self._waiting[0] if self._waiting else None

    def _due_at(self, command: Command) -> float:
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

    def _look_again(self, oldest: Command, turns: int) -> None:
        """The loop itself may have been late to send, or not have read what is there: let it, before giving up.

        A loop that does all timers before it reads, as uvloop does, needs some turns for that.
        """
        if self._oldest() is not oldest:
            self._look()
        elif turns:
            self._watch = self._loop.call_soon(self._look_again, oldest, turns - 1)
        else:
            self._breaker.trip()  # who asks next would wait as long as these have
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
