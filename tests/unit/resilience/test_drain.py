import asyncio

from starlette.types import Message, Receive, Scope, Send

from app.platform.resilience.drain import Drain, DrainMiddleware


class App:
    """Answers once it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})


async def ask(app: DrainMiddleware) -> list[tuple[bytes, bytes]]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http"}, receive, send)
    headers: list[tuple[bytes, bytes]] = sent[0]["headers"]
    return headers


async def test_waits_for_what_is_in_flight_and_asks_it_to_reconnect() -> None:
    app, drain = App(), Drain()
    request = asyncio.create_task(ask(DrainMiddleware(app, drain=drain)))
    await asyncio.sleep(0)
    assert drain.in_flight == 1
    assert not drain.is_draining

    drain.start()
    assert drain.is_draining
    assert not await drain.wait_idle(0.01)
    app.go.set()
    assert await drain.wait_idle(1)
    assert await request == [(b"a", b"b"), (b"connection", b"close")]


async def test_a_request_that_fails_or_is_cancelled_is_over_too() -> None:
    app, drain = App(), Drain()
    request = asyncio.create_task(ask(DrainMiddleware(app, drain=drain)))
    await asyncio.sleep(0)
    request.cancel()
    assert await drain.wait_idle(1)
    assert drain.in_flight == 0


async def test_connections_are_kept_otherwise() -> None:
    app = App()
    app.go.set()
    assert await ask(DrainMiddleware(app, drain=Drain())) == [(b"a", b"b")]
