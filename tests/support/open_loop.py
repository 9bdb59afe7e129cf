"""Load that comes when it comes, however those before have fared: an open loop, as users are.

(A closed loop, where each client waits for its answer, slows down together with the server and hides the overload:
B. Schroeder et al., "Open Versus Closed: A Cautionary Tale", NSDI 2006.)
"""

import asyncio
import random
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple, Self

HEAD_END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
MAX_CONNECTIONS = 4_000
HIT = b"\r\nx-cache: hit\r\n"

numbers = count()


@dataclass(frozen=True, slots=True)
class Question:
    """`share` of the load is this. `{number}` in the path makes each different."""

    kind: str
    path: str
    headers: Mapping[str, str]
    share: float = 1.0

    def packed(self) -> bytes:
        """As nginx passes it on: with the time at which it came."""
        head = {"Host": "headroom", "X-Forwarded-For": "198.51.100.7", **self.headers}
        head["X-Request-Start"] = f"t={time.time():.3f}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        path = self.path.format(number=next(numbers))
        return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


class Answer(NamedTuple):
    status: int
    is_hit: bool = False


UNANSWERED = Answer(0)


@dataclass(frozen=True, slots=True)
class Outcome:
    kind: str
    due: float  # when it came, in seconds since the load began
    status: int
    seconds: float  # of the last try
    is_hit: bool = False


class _Connection(asyncio.Protocol):
    """One question at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._answer: asyncio.Future[Answer] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, question: bytes) -> asyncio.Future[Answer]:
        self._received = b""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(question)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(HEAD_END)
        if end and self._answer is not None and not self._answer.done():
            length = LENGTH.search(head)
            if len(body) >= (int(length[1]) if length else 0):
                self._answer.set_result(Answer(int(head[9:12]), HIT in head + b"\r\n"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())


@dataclass
class OpenLoop:
    """Each waits `patience_seconds`, then leaves, and asks again, `tries` times in all; who is refused takes it."""

    port: int
    patience_seconds: float
    tries: int = 1
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._idle: list[_Connection] = []
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.finish()
        for connection in self._idle:
            connection.transport.close()

    def now(self) -> float:
        return time.monotonic() - self._began

    async def offer(self, questions: Sequence[Question], per_second: float, seconds: float) -> None:
        """Poisson arrivals, at times that are fixed beforehand."""
        due, end = self.now(), self.now() + seconds
        weights = [question.share for question in questions]
        while (due := due + random.expovariate(per_second)) < end:
            await asyncio.sleep(due - self.now())
            [question] = random.choices(questions, weights)
            task = asyncio.create_task(self._pursue(question, due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for those under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def together(self, question: Question, clients: int, seconds: float) -> float:
        """A closed loop for once: the answers per second that so many get who always wait for theirs."""
        end, before = self.now() + seconds, len(self.outcomes)

        async def one() -> None:
            while self.now() < end:
                await self._pursue(question, self.now())

        await asyncio.gather(*(one() for _ in range(clients)))
        return sum(outcome.status == 200 for outcome in self.outcomes[before:]) / seconds

    async def _pursue(self, question: Question, due: float) -> None:
        for _ in range(self.tries):
            started = time.monotonic()
            answer = await self.ask(question)
            seconds = time.monotonic() - started
            if answer is not UNANSWERED:
                break
        self.outcomes.append(Outcome(question.kind, due, answer.status, seconds, answer.is_hit))

    async def ask(self, question: Question) -> Answer:
        """`UNANSWERED` when there was none in time."""
        connection: _Connection | None = None
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(self.patience_seconds):
                connection = await self._connection()
                answer = await connection.ask(question.packed())
                self._idle.append(connection)
                return answer
        if connection is not None:
            connection.transport.abort()
            self._open -= 1
        return UNANSWERED

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
            self._open -= 1
        if self._open >= MAX_CONNECTIONS:
            raise OSError("the load has no more connections")
        loop = asyncio.get_running_loop()
        self._open += 1
        try:
            _, made = await loop.create_connection(_Connection, "127.0.0.1", self.port)
        except BaseException:
            self._open -= 1
            raise
        return made
