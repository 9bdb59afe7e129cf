"""Which primary is the last one that was promoted: writes to an older one would be lost.

A promotion begins a timeline, a number that only grows. A server that calls itself the primary on an older timeline
than one that was heard of was deposed, even if it doesn't know: it was started again, or cut off from those that
promoted another. It is refused when it is connected to, its connections are ended when the newer timeline is heard of,
and what it commits in between is not acknowledged (each COMMIT tells its timeline, at no cost).
"""

import logging

import asyncpg

from app.platform.postgres import metrics
from app.platform.postgres.errors import CommitOutcomeUnknown, DatabaseUnavailable
from app.platform.postgres.positions import timeline_of

logger = logging.getLogger(__name__)

# A standby's timeline is the one that it receives, and once its receiver is gone that of its last restartpoint.
# pg_walfile_name() starts with the timeline, in hexadecimal; pg_control only knows that of the last checkpoint.
TIMELINE = """
       CASE WHEN pg_is_in_recovery()
            THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT timeline_id FROM pg_control_checkpoint()))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
       END"""


class Fence:
    """Of one process. `timeline` is the newest one heard of: from the servers, from tokens and from other processes."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.timeline = 0
        self.enabled = enabled

    def hear(self, timeline: int) -> bool:
        """Whether it tells of a promotion: it is newer than one that was heard of before. The first one tells of none:
        whatever is connected, or about to be, has yet to be asked.
        """
        is_news = 0 < self.timeline < timeline
        self.timeline = max(self.timeline, timeline)
        return is_news

    def excludes(self, timeline: int) -> bool:
        return self.enabled and timeline < self.timeline

    async def admit(self, connection: "asyncpg.Connection[asyncpg.Record]", address: tuple[str, int]) -> None:
        """Asks a server that says it is the primary for its timeline; raises `DatabaseUnavailable` for an old one."""
        timeline = await connection.fetchval(f"SELECT {TIMELINE}")
        if not self.excludes(timeline):
            self.hear(timeline)
            return
        metrics.PRIMARIES_REFUSED.inc()
        logger.warning(
            "%s:%s says that it is the primary, on timeline %s: it was deposed, since there is timeline %s",
            *(*address, timeline, self.timeline),
        )
        raise DatabaseUnavailable("the server is no longer the primary")

    def check_commit(self, position: int) -> None:
        """Raises `CommitOutcomeUnknown` for what a deposed primary committed: it doesn't last."""
        if self.excludes(timeline_of(position)):
            raise CommitOutcomeUnknown("committed on a server that is no longer the primary")
