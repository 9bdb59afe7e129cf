"""Who else may serve from memory: what a writer has to know in order not to wait for longer than it must.

Times are this process's, of its monotonic clock: of a peer's heartbeat it is the moment of its arrival, which is not
before the one at which the peer sent it. So a peer's lease is over at the latest when it is over by this book.
"""

MAX_PEERS = 1_000


class Peers:
    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._listening_since = 0.0
        self._heard: dict[str, float] = {}

    def restart(self, now: float) -> None:
        """From now on every heartbeat is heard; of those before nothing is known."""
        self._listening_since = now
        self._heard.clear()

    def heard(self, peer: str, now: float) -> None:
        if len(self._heard) >= MAX_PEERS and peer not in self._heard:
            self._forget_silent(now)
        self._heard[peer] = now

    def with_lease(self, now: float) -> set[str] | None:
        """Who may have one, by a heartbeat that was heard before; None where that can't be told yet."""
        if now < self._listening_since + self._lease_seconds:
            return None
        self._forget_silent(now)
        return set(self._heard)

    def _forget_silent(self, now: float) -> None:
        self._heard = {peer: at for peer, at in self._heard.items() if now < at + self._lease_seconds}
