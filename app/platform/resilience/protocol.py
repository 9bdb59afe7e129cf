"""uvicorn's HTTP protocol, with an answer's head and body in one write.

uvicorn writes them one after the other. A process that is killed in between has sent a head that nginx has passed on
already: the request can't be repeated any more, whatever key it carries, and the client sees its answer break off.

And an ASGI extension for answers whose head is finished bytes: to check, copy and join 16 headers one by one costs more
than finding the answer in memory.

And what isn't HTTP is refused by a problem, as everything else is.
"""

import asyncio
import json
from typing import Any, NamedTuple, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.platform.telemetry.middleware import request_id_of

UNREADABLE = {
    "type": "/problems/malformed-request",
    "title": "The request is malformed",
    "status": 400,
    "detail": "It is not HTTP: its method, its path or a header holds what they can't.",
    "instance": "/",
}
UNREADABLE_HEAD = (
    b"content-type: application/problem+json\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n"
    b"x-request-id: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
)

FINISHED = "headroom.http.response.finished"


class JoiningTransport:
    """Holds what is written until more comes, at most to the event loop's next turn, and sends both in one write."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._held is None:
            self._held = data
            self._loop.call_soon(self._release)
        else:
            data, self._held = self._held + data, None
            self._transport.write(data)

    def write_whole(self, *parts: bytes) -> None:
        """Nothing is held back, and nothing copied."""
        self._release()
        self._transport.writelines(parts)

    def close(self) -> None:
        self._release()
        self._transport.close()

    def _release(self) -> None:
        if self._held is not None:
            data, self._held = self._held, None
            self._transport.write(data)


class FinishedAnswer(NamedTuple):
    """The `answer` of the extension `FINISHED` in a request's scope: answers it, once."""

    cycle: RequestResponseCycle
    protocol: "Protocol"

    def __call__(self, status: int, head: bytes, body: bytes) -> bool:
        """`head`: header lines as they go over the wire, the length among them, without the empty line at their end.

        False if that can't be now, and nothing was sent: `send` waits until it can.
        """
        cycle = self.cycle
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        told = b"".join((STATUS_LINE[status], self.protocol.default_lines(cycle.default_headers), head, end))
        cast(JoiningTransport, cycle.transport).write_whole(told, body)
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True


class Protocol(HttpToolsProtocol):
    _default_headers: list[tuple[bytes, bytes]] | None = None
    _default_lines = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, JoiningTransport(transport, self.loop)))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:  # else it is upgraded to a WebSocket
            # In time: the request's task has yet to run.
            self.scope["extensions"] = {FINISHED: {"answer": FinishedAnswer(self.cycle, self)}}

    def send_400_response(self, msg: str) -> None:
        """For what can't be parsed, and so never gets to the application: a problem like any other."""
        request_id = request_id_of(dict(self.headers or ()).get(b"x-request-id"))
        body = json.dumps({**UNREADABLE, "request_id": request_id}, separators=(",", ":")).encode()
        lines = (b"%s: %s\r\n" % header for header in self.server_state.default_headers)
        head = UNREADABLE_HEAD % (request_id.encode(), len(body))
        self.transport.write(b"".join((STATUS_LINE[400], *lines, head, body)))
        self.transport.close()

    def default_lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The server's own, the date above all: another list each second."""
        if headers is not self._default_headers:
            self._default_lines = b"".join(b"%s: %s\r\n" % header for header in headers)
            self._default_headers = headers
        return self._default_lines
