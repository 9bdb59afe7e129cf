"""What this process knows of the primary and the replicas, learned beside the requests, so that no read has to ask."""

import asyncio
from collections.abc import Sequence

from app.platform.postgres import metrics
from app.platform.postgres.lag import LagClock
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.primary import Primary
from app.platform.postgres.probe import Sample
from app.platform.postgres.replica import Replica
from app.platform.postgres.waiting import PositionWaiters
from app.platform.postgres.watch import Watch

WAITED_FOR_SECONDS = 0.005  # between two probes of a replica while reads wait for it


class Monitor:
    def __init__(self, primary: Primary, replicas: Sequence[Replica], options: DatabaseOptions) -> None:
        self.primary = primary
        self.replicas = tuple(replicas)
        self._options = options
        self._clock = LagClock()
        self._waiters = PositionWaiters()
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
        self._tasks = [asyncio.create_task(watch.run()) for watch in watches]
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
        self._clock.record(self.primary.position)

    def _replica_seen(self, replica: Replica, sample: Sample) -> None:
        replica.seen(sample, self.primary.position, self._clock)
        if replica.eligible:
            self._waiters.announce(replica.position)
        metrics.LAG_BYTES.labels(replica.name).set(replica.lag_bytes)
        metrics.LAG_SECONDS.labels(replica.name).set(replica.lag_seconds)
        metrics.REPLICA_ELIGIBLE.labels(replica.name).set(replica.eligible)

    def _replica_lost(self, replica: Replica, reason: str) -> None:
        """One that is late gets no new reads; one that is gone or frozen lets go of those that wait for its answer."""
        replica.eject(reason)
        metrics.REPLICA_ELIGIBLE.labels(replica.name).set(0)
        if reason != "late":
            replica.connector.abort()
