"""How far a replica is behind, in time, told by the primary's own progress."""

import time
from collections import deque

from app.platform.postgres.positions import covers

HISTORY = 2_048
SPACING_SECONDS = 0.05


class PrimaryHistory:
    """Remembers when the primary was where; times are of `time.monotonic()`, before the primary was asked.

    A replica's lag is the age of the oldest position that it has not replayed. Unlike
    `now() - pg_last_xact_replay_timestamp()` it doesn't grow while the primary is idle, needs no synchronised clocks,
    and goes on growing when the replica has lost its connection to the primary.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=HISTORY)
        self._latest = (float("-inf"), 0)

    def record(self, asked_at: float, position: int) -> None:
        """Keeps positions that are new, 50 ms apart or more: the history spans 100 s at least."""
        self._latest = (asked_at, position)
        if self._seen and (self._seen[-1][1] == position or asked_at - self._seen[-1][0] < SPACING_SECONDS):
            return
        self._seen.append(self._latest)

    def lag_seconds(self, replayed: int, now: float | None = None) -> float:
        """At most the age of the history."""
        at = time.monotonic() if now is None else now
        behind_since = at
        for asked_at, position in reversed(self._seen):
            if covers(replayed, position):
                break
            behind_since = asked_at
        return at - behind_since

    def position_after(self, moment: float) -> int | None:
        """A position that everything committed until `moment` lies before; None if the primary was not asked since."""
        asked_at, position = self._latest
        if asked_at < moment:
            return None
        for seen_at, seen in reversed(self._seen):
            if seen_at < moment:
                break
            position = seen
        return position
