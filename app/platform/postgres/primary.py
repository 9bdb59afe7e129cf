"""The primary: the pool that writes, the small one that reads while replicas are away, and which host it is."""

import logging

from app.platform.postgres import metrics
from app.platform.postgres.connector import Address
from app.platform.postgres.fence import Fence
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.positions import timeline_of
from app.platform.postgres.probe import Sample
from app.platform.postgres.server import Server

logger = logging.getLogger(__name__)


class Primary:
    """Follows the role to another host: what was connected to the old one is dropped, since it may never answer."""

    def __init__(self, options: DatabaseOptions) -> None:
        self.fence = Fence(enabled=options.fence_old_primaries)
        self.writer = Server(
            "primary",
            options.url,
            options,
            read_only=False,
            size=options.pool_size,
            overflow=options.pool_overflow,
            fence=self.fence,
        )
        self.reader = Server(
            "primary-read",
            options.url,
            options,
            read_only=True,
            size=options.primary_read_connections,
            overflow=0,
            fence=self.fence,
        )
        self.up = False
        self.position = 0
        self.round_trip_seconds = 0.0
        self.address: Address | None = None

    def seen(self, sample: Sample) -> None:
        if sample.in_recovery:
            self.lost("demoted")
            return
        if self.fence.excludes(timeline_of(sample.position)):
            self.demoted()
            return
        self.fence.hear(timeline_of(sample.position))
        self.up = True
        self.position = sample.position
        self.round_trip_seconds = sample.round_trip_seconds
        if self.address not in (None, sample.address):
            self._moved(sample.address)
        self.address = sample.address

    def lost(self, reason: str) -> None:
        if self.up:
            logger.warning("the primary does not answer (%s)", reason)
        self.up = False

    def heard(self, position: int) -> None:
        """Of a position on the primary, from wherever: one on a newer timeline tells that this one was deposed."""
        if self.fence.hear(timeline_of(position)) and self.fence.excludes(timeline_of(self.position)):
            self.demoted()

    def demoted(self) -> None:
        """It refuses writes: every connection to it is useless, and the next one finds out who is the primary now."""
        self.lost("demoted")
        self.writer.connector.abort()
        self.reader.connector.abort()

    def _moved(self, address: Address) -> None:
        logger.warning("the primary is at %s:%s now", *address)
        metrics.PRIMARY_CHANGES.inc()
        for server in (self.writer, self.reader):
            server.connector.move(address)

    async def aclose(self) -> None:
        await self.writer.aclose()
        await self.reader.aclose()
