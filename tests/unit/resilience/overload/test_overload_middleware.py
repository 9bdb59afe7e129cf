import asyncio
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from app.platform.resilience.overload import AdaptiveLimit, Criticality, Gate, OverloadMiddleware

REFUSED = 503


class App:
    """Answers with `status` once it is let go."""

    def __init__(self, status: int = 200, content_type: bytes = b"application/json") -> None:
        self.go = asyncio.Event()
        self.start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type)]}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(self.start)
        await self.go.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": REFUSED, "headers": []})


def guarded(app: App, **options: Any) -> OverloadMiddleware:
    gate = Gate(AdaptiveLimit(least=1, most=1), max_waiting=0, wait_seconds=1)
    return OverloadMiddleware(
        app, gate=gate, classify=lambda scope: ("/", Criticality.NORMAL), refused=refuse, **options
    )


async def ask(app: OverloadMiddleware, path: str = "/", kind: str = "http") -> int:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": kind, "path": path}, lambda: asyncio.sleep(0, {}), send)
    return int(sent[0]["status"])


async def test_one_too_many_is_refused_before_the_application_sees_it() -> None:
    app = App()
    guard = guarded(app)
    first = asyncio.create_task(ask(guard))
    await asyncio.sleep(0)
    assert await ask(guard) == REFUSED
    app.go.set()
    assert await first == 200
    assert guard.gate.in_flight == 0


async def test_an_application_that_fails_gives_its_place_back() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    guard = guarded(App())
    guard.app = broken
    for _ in range(3):
        await asyncio.wait([asyncio.create_task(ask(guard))])
    assert guard.gate.in_flight == 0


async def test_probes_are_never_held_up() -> None:
    app = App()
    guard = guarded(app, exempt_paths={"/readyz"})
    first = asyncio.create_task(ask(guard))
    await asyncio.sleep(0)
    app.go.set()
    assert await ask(guard, "/readyz") == 200
    await first


async def test_an_event_stream_holds_no_place() -> None:
    app = App(content_type=b"text/event-stream; charset=utf-8")
    guard = guarded(app)
    streams = [asyncio.create_task(ask(guard)) for _ in range(3)]
    await asyncio.sleep(0)
    assert guard.gate.in_flight == 0
    app.go.set()
    assert await asyncio.gather(*streams) == [200] * 3
