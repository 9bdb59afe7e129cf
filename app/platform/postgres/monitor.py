"""What this process knows of the primary and the replicas, learned beside the requests, so that no read has to ask."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

from app.platform.postgres import metrics
from app.platform.postgres.lag import PrimaryHistory
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.positions import pack
from app.platform.postgres.primary import Primary
from app.platform.postgres.probe import Sample
from app.platform.postgres.replica import Replica
from app.platform.postgres.waiting import PositionWaiters
from app.platform.postgres.watch import Watch
from app.platform.resilience.deadlines import remaining

REPORT_SECONDS = 1.0
LOOK_SECONDS = 2.0
WAITED_FOR_SECONDS = 0.005  # between two probes of a replica while reads wait for it


class Monitor:
    def __init__(self, primary: Primary, replicas: Sequence[Replica], options: DatabaseOptions) -> None:
        self.primary = primary
        self.replicas = tuple(replicas)
        self._options = options
        self._history = PrimaryHistory()
        self._waiters = PositionWaiters()
        self._primary_asked = asyncio.Event()
        self._watches = {replica: self._watch_replica(replica) for replica in self.replicas}
        self._primary_watch = Watch(
            primary.writer,
            options.probe_timeout_seconds,
            seen=self._primary_seen,
            lost=primary.lost,
            pause=lambda: options.probe_interval_seconds,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when every server has been asked once, or had the time to answer."""
        watches = [self._primary_watch, *self._watches.values()]
        beside = (self._report(), self._look_around())
        self._tasks = [asyncio.create_task(work) for work in (*(watch.run() for watch in watches), *beside)]
        asked = [asyncio.create_task(watch.asked_once.wait()) for watch in watches]
        _, late = await asyncio.wait(asked, timeout=self._options.connect_timeout_seconds)
        for task in late:
            task.cancel()

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def eject(self, replica: Replica, reason: str) -> None:
        """Out of use until a new connection to it has answered."""
        replica.eject(reason)
        self._watches[replica].reconnect()

    async def reached(self, required: int, seconds: float) -> bool:
        """Waits for a replica to reach a position; they are asked more often meanwhile."""
        for watch in self._watches.values():
            watch.wake()
        return await self._waiters.wait(required, seconds)

    def known_position_after(self, moment: float) -> int | None:
        """The same as far as it is known by now: None if the primary was not asked since."""
        return self._history.position_after(moment)

    async def position_after(self, moment: float) -> int:
        """A position that everything which was readable at `moment` lies before; asks the primary where need be.

        Where the primary doesn't answer, its last known one: what it committed since, nobody can have read from it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(remaining(self._options.consistency_wait_seconds)):
                await asyncio.sleep(moment - time.monotonic())
                while (position := self._history.position_after(moment)) is None:
                    self._primary_watch.wake()
                    await self._primary_asked.wait()
                return position
        return self.primary.position

    def _watch_replica(self, replica: Replica) -> Watch:
        return Watch(
            replica,
            self._options.probe_timeout_seconds,
            seen=lambda sample: self._replica_seen(replica, sample),
            lost=lambda reason: self._replica_lost(replica, reason),
            pause=lambda: WAITED_FOR_SECONDS if self._waiters else self._options.probe_interval_seconds,
        )

    def _primary_seen(self, sample: Sample) -> None:
        self.primary.seen(sample)
        if self.primary.up:
            self._history.record(sample.asked_at, sample.position)
            self._primary_asked.set()
            self._primary_asked.clear()

    def _replica_seen(self, replica: Replica, sample: Sample) -> None:
        self.primary.heard(sample.position)
        replica.seen(sample, self.primary.position, self._history)
        if replica.eligible:
            self._waiters.announce(replica.position)

    def _replica_lost(self, replica: Replica, reason: str) -> None:
        """One that is late gets no new reads; one that is gone or frozen lets go of those that wait for its answer."""
        replica.eject(reason)
        if reason != "late":
            replica.cut_off()

    async def _look_around(self) -> None:
        """Where no replica is watched that would tell of a promotion."""
        while not self.replicas:
            await asyncio.sleep(LOOK_SECONDS)
            self.primary.heard(pack(await self.primary.writer.newest_timeline(), 0))

    async def _report(self) -> None:
        while True:
            for replica in self.replicas:
                metrics.LAG_BYTES.labels(replica.name).set(replica.lag_bytes)
                metrics.LAG_SECONDS.labels(replica.name).set(replica.lag_seconds)
                metrics.REPLICA_ELIGIBLE.labels(replica.name).set(replica.eligible)
            for server in (self.primary.writer, self.primary.reader, *self.replicas):
                pool = server.pool_state()
                metrics.POOL_OPEN.labels(pool.server).set(pool.open)
                metrics.POOL_IN_USE.labels(pool.server).set(pool.in_use)
                metrics.POOL_LIMIT.labels(pool.server).set(pool.limit)
            await asyncio.sleep(REPORT_SECONDS)
