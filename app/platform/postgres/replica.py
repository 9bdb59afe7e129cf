"""What is known of a replica, and whether reads may go there."""

import random
import time
from enum import StrEnum

from app.platform.postgres import metrics
from app.platform.postgres.lag import PrimaryHistory
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.positions import lsn_of
from app.platform.postgres.probe import Sample
from app.platform.postgres.server import Server


class State(StrEnum):
    HEALTHY = "healthy"
    LAGGING = "lagging"
    DOWN = "down"
    PROMOTED = "promoted"  # not a replica any more; reads reach it as the primary, within the primary's budget


class Replica(Server):
    """Ejected at once, taken back after a while of being well, at random so that not all processes rush it together."""

    def __init__(self, name: str, url: str, options: DatabaseOptions) -> None:
        super().__init__(
            name,
            url,
            options,
            read_only=True,
            size=options.pool_size,
            overflow=options.pool_overflow,
        )
        self.state = State.DOWN
        self.position = 0  # replayed at least so far, until the connection that told it is lost
        self.lag_bytes = 0
        self.lag_seconds = 0.0
        self.round_trip_seconds = 0.0
        self._options = options
        self._admit_at: float | None = 0.0  # at once when it is seen for the first time

    @property
    def served_by(self) -> str:
        return f"replica:{self.name}"

    @property
    def eligible(self) -> bool:
        return self.state is State.HEALTHY

    def seen(self, sample: Sample, primary_position: int, history: PrimaryHistory) -> None:
        self.position = sample.position
        self.round_trip_seconds = sample.round_trip_seconds
        self.lag_seconds = history.lag_seconds(sample.position)
        self.lag_bytes = max(0, lsn_of(primary_position) - lsn_of(sample.position))
        if not sample.in_recovery:
            self._leave(State.PROMOTED)
        elif self.lag_seconds > self._lag_limit():
            self._leave(State.LAGGING)
        elif self.state is not State.HEALTHY:
            self._admit_when_due()

    def eject(self, reason: str) -> None:
        """No reads from now on; what was known of its position is void, since it may come back with less."""
        if self.state is not State.DOWN:
            metrics.EJECTIONS.labels(self.name, reason).inc()
        self._leave(State.DOWN)
        self.position = 0

    def _lag_limit(self) -> float:
        """Half of it for a replica that was over it, so that one on the edge doesn't go in and out."""
        limit = self._options.max_lag_seconds
        return limit / 2 if self.state is State.LAGGING else limit

    def _leave(self, state: State) -> None:
        self.state = state
        self._admit_at = None

    def _admit_when_due(self) -> None:
        now = time.monotonic()
        if self._admit_at is None:
            self._admit_at = now + self._options.readmit_seconds * random.uniform(0.5, 1.5)
        if now >= self._admit_at:
            self.state = State.HEALTHY
