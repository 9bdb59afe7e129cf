"""uvicorn's HTTP protocol, with an answer's head and body in one write.

uvicorn writes them one after the other. A process that is killed in between has sent a head that nginx has passed on
already: the request can't be repeated any more, whatever key it carries, and the client sees its answer break off.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


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

    def close(self) -> None:
        self._release()
        self._transport.close()

    def _release(self) -> None:
        if self._held is not None:
            data, self._held = self._held, None
            self._transport.write(data)


class Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, JoiningTransport(transport, self.loop)))
