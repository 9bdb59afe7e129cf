"""Which access tokens are no good any more: an answer from memory, never older than a second.

Tokens are checked without a database, so what ends one before its time has to be in every process. Each asks the
primary for new revocations, again and again, and keeps those that some token may still run into. What it knows is good
for `FRESH_SECONDS` from when it asked; when that is over, nobody who carries a token is let in until it is known again.

While there is no primary the replicas answer: a commit waits for any one of them, so that together they have received
every revocation that was acknowledged. Each has to answer, and to show all that it has received.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Protocol
from uuid import UUID

from prometheus_client import Counter, Gauge

from app.platform.resilience.deadlines import remaining
from app.platform.security.caller import Caller
from app.platform.security.revocation_log import LOST, MAX_ROWS, Behind, Revoked

logger = logging.getLogger(__name__)

FRESH_SECONDS = 1.0
PAUSE_SECONDS = 0.25
ASK_SECONDS = 0.4
RETRY_SECONDS = 0.05
MARGIN_SECONDS = 60.0  # by which clocks of instances may differ: tokens end by the clock of whoever checks them

KNOWN = Gauge("revocations_known", "Subjects whose tokens are refused", multiprocess_mode="livemax")
READINGS = Counter("revocation_readings_total", "Times that revocations were asked for, by who answered", ["source"])
REFUSED = Counter("revoked_tokens_refused_total", "Requests with an access token that was revoked")


class RevocationsUnknown(Exception):
    """Neither the primary nor all replicas say which tokens are revoked: nobody's token can be trusted now."""


class Source(Protocol):
    async def read(self) -> Sequence[Revoked]: ...
    async def read_caught_up(self) -> Sequence[Revoked]: ...
    def close(self) -> None: ...


class Revocations:
    """`keep_seconds`: the life of an access token. With `enabled=False` every token is good until it ends."""

    def __init__(
        self, primary: Source, replicas: Sequence[Source], *, keep_seconds: float, enabled: bool = True
    ) -> None:
        self._primary = primary
        self._replicas = tuple(replicas)
        self._keep_seconds = keep_seconds + MARGIN_SECONDS
        self._enabled = enabled
        self._least: dict[UUID, int] = {}
        self._until: dict[UUID, float] = {}  # in the order of their ends
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[bool] | None = None
        self._again = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def is_revoked(self, caller: Caller) -> bool:
        """As far as this process knows: ask `is_fresh` first, and `ready()` where it is not."""
        least = self._least
        if not least:
            return False
        revoked = caller.epoch < least.get(caller.user_id, 0) or caller.epoch < least.get(caller.session_id, 0)
        if revoked:
            REFUSED.inc()
        return revoked

    @property
    def is_fresh(self) -> bool:
        """Whether everything is known that was committed a second ago."""
        return not self._enabled or time.monotonic() - self._asked_at < FRESH_SECONDS

    async def ready(self) -> None:
        """Returns at once while it is fresh. Raises `RevocationsUnknown`, after a second at most."""
        if self.is_fresh:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(remaining(FRESH_SECONDS)):
                while not await self._ask():  # noqa: ASYNC110 - a server that comes back tells no one
                    await asyncio.sleep(RETRY_SECONDS)
        if not self.is_fresh:
            raise RevocationsUnknown

    async def refresh(self) -> None:
        """After a COMMIT that revoked: all that it wrote is known here when this returns, if the primary answers."""
        if self._enabled:
            if self._asking is not None:
                await asyncio.shield(self._asking)  # it may have begun before the COMMIT
            await self._ask()

    def wake(self) -> None:
        """Another process has revoked something: ask now rather than when the pause is over."""
        self._again.set()

    async def start(self) -> None:
        """Returns whether or not anybody answers."""
        if self._enabled:
            await self._ask()
            self._loop = asyncio.create_task(self._ask_again_and_again())

    async def aclose(self) -> None:
        for task in (self._loop, self._asking):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        for source in (self._primary, *self._replicas):
            source.close()

    async def _ask_again_and_again(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS):
                    await self._again.wait()
            self._again.clear()
            await self._ask()

    async def _ask(self) -> bool:
        """One question at a time, whoever waits for it."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._read())
            self._asking.add_done_callback(self._answered)
        return await asyncio.shield(self._asking)

    def _answered(self, _task: "asyncio.Task[bool]") -> None:
        self._asking = None

    async def _read(self) -> bool:
        """Whether anybody answered."""
        for source, read in (("primary", self._read_primary), ("replicas", self._read_replicas)):
            started = time.monotonic()
            with suppress(*LOST, Behind):
                known = self._learn(await read())
                self._asked_at = started if known else float("-inf")
                READINGS.labels(source).inc()
                return known
        READINGS.labels("nobody").inc()
        if self.is_fresh:
            logger.warning("neither the primary nor all replicas say which tokens are revoked")
        return False

    async def _read_primary(self) -> Sequence[Revoked]:
        return await within(self._primary.read())

    async def _read_replicas(self) -> Sequence[Revoked]:
        if not self._replicas:
            raise Behind("there are none")
        reading = (within(replica.read_caught_up()) for replica in self._replicas)
        found = await asyncio.gather(*reading, return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException):
                raise error
        return list(chain.from_iterable(found))  # type: ignore[arg-type]

    def _learn(self, revoked: Sequence[Revoked]) -> bool:
        """False where that is more than is kept: then nobody can be trusted."""
        now = time.monotonic()
        for subject, epoch in revoked:
            if self._least.get(subject, 0) < epoch:
                self._least[subject] = epoch
                self._until.pop(subject, None)
                self._until[subject] = now + self._keep_seconds
        while self._until and self._until[oldest := next(iter(self._until))] <= now:
            del self._until[oldest], self._least[oldest]
        KNOWN.set(len(self._least))
        return len(revoked) < MAX_ROWS and len(self._least) < MAX_ROWS


async def within(asked: Coroutine[Any, Any, Sequence[Revoked]]) -> Sequence[Revoked]:
    async with asyncio.timeout(ASK_SECONDS):
        return await asked
