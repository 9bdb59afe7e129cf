import asyncio
import time

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.platform.resilience.arrival import ArrivalClock
from app.platform.resilience.deadlines import (
    DeadlineExceeded,
    DeadlineMiddleware,
    bounded,
    deadline,
    remaining,
    requested_seconds,
)

START = {"type": "http.response.start", "status": 200, "headers": []}


async def ask(app: DeadlineMiddleware, timeout_ms: bytes | None = None) -> list[Message]:
    headers = [] if timeout_ms is None else [(b"x-request-timeout-ms", timeout_ms)]
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http", "headers": headers}, receive, send)
    return sent


async def expired(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 504, "headers": []})


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(5)
    await send(START)


class Late(ArrivalClock):
    """All have waited for so long."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def queued_seconds(self, scope: Scope) -> float:
        return self.seconds


async def test_the_wait_before_the_worker_counts() -> None:
    left: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        left.append(remaining(60.0))
        await send(START)

    await ask(DeadlineMiddleware(app, default_seconds=10, expired=expired, arrival=Late(4)))
    assert 5 < left[0] <= 6


async def test_what_comes_after_its_deadline_is_not_begun() -> None:
    begun: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope)

    [start] = await ask(DeadlineMiddleware(app, default_seconds=1, expired=expired, arrival=Late(2)))
    assert start["status"] == 504
    assert not begun


async def test_without_a_request_the_default_holds() -> None:
    assert remaining(3.0) == 3.0


async def test_what_is_left_only_lowers_and_never_below_zero() -> None:
    token = deadline.set(time.monotonic() + 1)
    assert remaining(0.5) == 0.5
    assert 0.9 < remaining(3.0) <= 1.0
    deadline.set(time.monotonic() - 1)
    assert remaining(3.0) == 0.0
    deadline.reset(token)


async def test_bounded_tells_its_own_bound_from_the_deadline() -> None:
    with pytest.raises(TimeoutError) as own:
        async with bounded(0.01):
            await asyncio.sleep(1)
    assert not isinstance(own.value, DeadlineExceeded)

    token = deadline.set(time.monotonic() + 0.01)
    with pytest.raises(DeadlineExceeded):
        async with bounded(5):
            await asyncio.sleep(1)
    deadline.reset(token)


async def test_bounded_lets_a_timeout_from_within_pass_as_it_is() -> None:
    with pytest.raises(TimeoutError, match="from within"):
        async with bounded(5):
            raise TimeoutError("from within")


async def test_past_the_deadline_the_work_is_cancelled_and_answered_for() -> None:
    app = DeadlineMiddleware(slow, default_seconds=0.02, expired=expired)
    assert [message["status"] for message in await ask(app)] == [504]
    assert deadline.get() is None


@pytest.mark.parametrize("asked", [b"20", b"1"])
async def test_a_client_may_lower_its_deadline(asked: bytes) -> None:
    app = DeadlineMiddleware(slow, default_seconds=60, expired=expired)
    assert [message["status"] for message in await ask(app, asked)] == [504]


async def test_a_client_may_not_raise_it() -> None:
    app = DeadlineMiddleware(slow, default_seconds=0.02, expired=expired)
    assert [message["status"] for message in await ask(app, b"60000")] == [504]


@pytest.mark.parametrize("value", [b"", b"-5", b"0", b"1e3", b"soon", b"9" * 5_000, "٣".encode()])
async def test_what_is_no_number_of_milliseconds_is_ignored(value: bytes) -> None:
    assert requested_seconds({"headers": [(b"x-request-timeout-ms", value)]}) is None


async def test_an_answer_that_has_begun_is_not_cut() -> None:
    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"done"})

    app = DeadlineMiddleware(streams, default_seconds=0.02, expired=expired)
    assert [message["type"] for message in await ask(app)] == ["http.response.start", "http.response.body"]


async def test_a_timeout_of_the_app_itself_is_not_the_deadline() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise TimeoutError("upstream")

    with pytest.raises(TimeoutError, match="upstream"):
        await ask(DeadlineMiddleware(fails, default_seconds=5, expired=expired))
