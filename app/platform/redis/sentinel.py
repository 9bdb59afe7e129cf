"""Redis Sentinel: who is the master now (https://redis.io/docs/latest/develop/reference/sentinel-clients/).

Asked at each new connection. A failover ends the connection to the old master, or leaves its commands without an
answer, or has them refused as READONLY; each of these makes the client connect anew.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from redis.asyncio import Connection
from redis.exceptions import RedisError

from app.platform.redis.link import Connect, RedisUnavailable


class Sentinels:
    """All are asked at once. What more than half of them say is believed, else what most of those that answer say."""

    def __init__(
        self,
        service: str,
        sentinels: Sequence[Connect],
        connect_to: Callable[[str], Connect],
        *,
        timeout_seconds: float,
    ) -> None:
        self._service = service
        self._sentinels = sentinels
        self._connect_to = connect_to
        self._timeout_seconds = timeout_seconds

    async def connect_to_master(self) -> Connection:
        """Raises RedisUnavailable when nobody knows, or whoever they name says that it is none."""
        address = await self._master()
        connection = await self._connect_to(address)()
        try:
            await connection.send_command("ROLE")
            role, *_ = await connection.read_response(timeout=self._timeout_seconds)
            if role != b"master":
                raise RedisUnavailable("no_master", f"{address} says that it is a {role!r}")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _master(self) -> str:
        votes: Counter[str] = Counter()
        questions = [asyncio.ensure_future(self._ask(sentinel)) for sentinel in self._sentinels]
        try:
            for answer in asyncio.as_completed(questions):
                with suppress(RedisError, OSError, TimeoutError):
                    votes[await answer] += 1
                if votes and votes.most_common(1)[0][1] > len(questions) / 2:
                    break
        finally:
            for question in questions:
                question.cancel()
        if not votes:
            raise RedisUnavailable("no_master", f"no sentinel knows {self._service}")
        return votes.most_common(1)[0][0]

    async def _ask(self, connect: Connect) -> str:
        async with asyncio.timeout(self._timeout_seconds):
            connection = await connect()
            try:
                await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
                found = await connection.read_response()
            finally:
                await connection.disconnect(nowait=True)
        if found is None:
            raise RedisUnavailable("no_master", f"a sentinel does not know {self._service}")
        host, port = (part.decode() for part in found)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
