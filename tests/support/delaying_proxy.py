"""A slow network: what a server sends arrives late, and what is under way when the server dies never arrives.

On loopback a killed server loses nothing: the kernel delivers what is in its buffers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536
MAX_CHUNKS = 10_000


class DelayingProxy:
    """Connections to `port` lead to `target` on loopback. Both attributes may change; new connections heed `target`."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay_seconds = 0.0
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["DelayingProxy"]:
        async with await asyncio.start_server(self._connected, HOST) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            server, to_server = await asyncio.open_connection(HOST, self.target)
        except OSError:
            to_client.close()
            return
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_CHUNKS)
        ways = [
            asyncio.create_task(self._pass_on(client, to_server)),
            asyncio.create_task(self._take(server, under_way)),
            asyncio.create_task(self._deliver(under_way, to_client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # the loop ends
        finally:
            for way in ways:
                way.cancel()
            to_client.close()
            to_server.close()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK_BYTES):
            sink.write(data)
            await sink.drain()

    async def _take(self, server: asyncio.StreamReader, under_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        clock = asyncio.get_running_loop().time
        while data := await server.read(CHUNK_BYTES):
            await under_way.put((clock() + self.delay_seconds, data))

    async def _deliver(self, under_way: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - clock())
            sink.write(data)
            await sink.drain()
