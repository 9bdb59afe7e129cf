"""One task that asks one server for its position, again and again."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from app.platform.postgres.probe import PROBE_ERRORS, Probe, Sample
from app.platform.postgres.server import Server

logger = logging.getLogger(__name__)


class Watch:
    """`seen` gets each answer; `lost` a reason when there is none; `pause` says how many seconds to wait in between."""

    def __init__(
        self,
        server: Server,
        timeout_seconds: float,
        *,
        seen: Callable[[Sample], None],
        lost: Callable[[str], None],
        pause: Callable[[], float],
    ) -> None:
        self.asked_once = asyncio.Event()
        self._wake = asyncio.Event()
        self._seen, self._lost, self._pause = seen, lost, pause
        self._probe = Probe(server.connect, timeout_seconds, on_late=lambda: lost("late"), on_lost=self._disconnected)

    async def run(self) -> None:
        try:
            while True:
                await self._ask()
                self.asked_once.set()
                await self._sleep()
        finally:
            self._probe.close()

    def wake(self) -> None:
        """Asks now rather than when the pause is over."""
        self._wake.set()

    def reconnect(self) -> None:
        """Asks on a new connection: one that still answers says nothing about whether new ones can be made."""
        self._probe.close()
        self._wake.set()

    async def _ask(self) -> None:
        try:
            sample = await self._probe.ask()
        except PROBE_ERRORS as error:
            self._lost("timeout" if isinstance(error, TimeoutError) else "unreachable")
        except Exception:
            logger.exception("a probe failed in a way that is not known")
            self._lost("unknown")
        else:
            self._seen(sample)

    async def _sleep(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause()):
                await self._wake.wait()
        self._wake.clear()

    def _disconnected(self) -> None:
        self._lost("disconnected")
        self._wake.set()
