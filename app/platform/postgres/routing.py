"""Which server a read goes to: a replica that has what it requires, by least load of two at random, or the primary."""

import random
import time
from collections.abc import Sequence

from app.platform.postgres import metrics
from app.platform.postgres.errors import CONFLICTS, LOCK_TIMEOUT, is_unreachable, sqlstate
from app.platform.postgres.monitor import Monitor
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.positions import covers
from app.platform.postgres.replica import Replica
from app.platform.postgres.server import Server
from app.platform.resilience.deadlines import remaining
from app.platform.telemetry.context import LastRead, current

IN_THE_WAY = CONFLICTS | {LOCK_TIMEOUT}  # of a read on a replica: replay, and the locks that it takes
# Of reads: who reads without a pause would stay with one replica for good, and one that came back would get nobody.
MOVES = 0.02
CLOCK_SKEW_SECONDS = 0.005  # between the machines of the service's processes


class Router:
    """Decides on what the monitor has seen: no query, and no wait unless a position is required that no replica has."""

    def __init__(self, monitor: Monitor, primary: Server, options: DatabaseOptions) -> None:
        self._monitor = monitor
        self._primary = primary
        self._options = options

    async def choose(self, required: int, last: LastRead | None = None) -> Server:
        """A server that has `required`, and nothing older than what the caller's `last` read can have shown.

        Waits for at most `consistency_wait_seconds`.
        """
        if last is not None:
            now = time.time()
            moment = time.monotonic() - (now - min(last.until, now)) + CLOCK_SKEW_SECONDS
            at_once = self._least_loaded(self._not_behind(last, required, moment))
            if at_once is not None and random.random() >= MOVES:
                return _met("at_once", at_once)
            required = max(required, await self._monitor.position_after(moment))
            if at_once is not None:
                return _met("at_once", self._least_loaded(self._eligible(required)) or at_once)
        if not required:
            return self._least_loaded(self._eligible(0)) or self._primary
        if at_once := self._least_loaded(self._eligible(required)):
            return _met("at_once", at_once)
        if await self._reached(required) and (waited := self._least_loaded(self._eligible(required))):
            return _met("waited", waited)
        return _met("primary", self._primary)

    def other(self, required: int, tried: Sequence[Server], *, answered: bool) -> Server | None:
        """Where to go when `tried` have failed; None when nothing is left.

        A session that was `answered` before goes to the primary: another replica may be behind what it has seen.
        """
        left = [] if answered else [replica for replica in self._eligible(required) if replica not in tried]
        return self._least_loaded(left) or (None if self._primary in tried else self._primary)

    def failed(self, server: Server) -> None:
        """A read could not reach it: nobody else needs to find that out."""
        if isinstance(server, Replica):
            self._monitor.eject(server, "read failed")

    def _not_behind(self, last: LastRead, required: int, moment: float) -> list[Replica]:
        """What a replica has replayed only grows, so the same one shows nothing older; others have to be past then."""
        past = self._monitor.known_position_after(moment)
        return [
            replica
            for replica in self._eligible(required)
            if replica.name == last.server or (past is not None and covers(replica.position, past))
        ]

    def _eligible(self, required: int) -> list[Replica]:
        return [
            replica
            for replica in self._monitor.replicas
            if replica.eligible and (not required or covers(replica.position, required))
        ]

    def _least_loaded(self, replicas: list[Replica]) -> Replica | None:
        """Power of two choices (Mitzenmacher 2001): as good as knowing the least of all, without a stampede to it."""
        if not replicas:
            return None
        return min(random.sample(replicas, min(2, len(replicas))), key=_load)

    async def _reached(self, required: int) -> bool:
        seconds = remaining(self._options.consistency_wait_seconds)
        hopeful = any(replica.eligible and replica.lag_seconds <= seconds for replica in self._monitor.replicas)
        return hopeful and await self._monitor.reached(required, seconds)


def _load(replica: Replica) -> tuple[int, int]:
    """Sessions first, then the round trip: in steps of 5 ms, so that not noise decides but the distance."""
    return replica.in_use, round(replica.round_trip_seconds / 0.005)


def _met(how: str, server: Server) -> Server:
    metrics.READ_REQUIREMENTS.labels(how).inc()
    return server


class ReadRoute:
    """Where one session's statements go, and where to when that fails."""

    def __init__(self, router: Router, server: Server, required: int) -> None:
        self._router = router
        self._required = required
        self._tried: list[Server] = []
        self.answered = False
        self.pinned = False
        self._enter(server)

    def divert(self, error: Exception) -> bool:
        """Moves to another server if that may help. That replay is in the way doesn't tell against the replica."""
        if is_unreachable(error):
            self._router.failed(self.server)
        elif not (isinstance(self.server, Replica) and sqlstate(error) in IN_THE_WAY):
            return False
        other = None if self.pinned else self._router.other(self._required, self._tried, answered=self.answered)
        if other is None:
            return False
        metrics.DIVERSIONS.labels(self.server.name).inc()
        self.leave()
        self._enter(other)
        return True

    def leave(self) -> None:
        self.server.in_use -= 1

    def _enter(self, server: Server) -> None:
        self.server = server
        self._tried.append(server)
        server.in_use += 1
        context = current()
        context.served_by, context.read_from = server.served_by, server.name
        metrics.READS.labels(server.name).inc()
