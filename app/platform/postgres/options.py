"""What the room needs to know, as plain values."""

from dataclasses import dataclass, field

from sqlalchemy import make_url


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """`url` may name several hosts (`?host=a:5432&host=b:5432`), of which the primary is found; replicas name one each.

    A replica's URL may say `?name=`; without it they are `replica-1`, `replica-2`, ... in their order. Any of them may
    say `?probe=`, a database at the same address to ask for positions: behind a pooler, one with a pool of its own.
    """

    url: str = field(repr=False)
    replica_urls: tuple[str, ...] = field(default=(), repr=False)
    application_name: str = "headroom"

    pool_size: int = 10  # connections kept, per process and server
    pool_overflow: int = 5  # on top, under load
    pool_timeout_seconds: float = 2.0
    pool_recycle_seconds: float = 1_800.0
    connect_timeout_seconds: float = 2.0
    statement_cache_size: int = 256  # prepared statements per connection; 0 behind a pooler in transaction mode

    statement_timeout_seconds: float = 5.0
    lock_timeout_seconds: float = 2.0
    replica_lock_timeout_seconds: float = 0.25  # then the read goes elsewhere: replay of DDL may hold a lock for long
    idle_in_transaction_seconds: float = 30.0
    commit_timeout_seconds: float = 10.0  # COMMIT waits for a synchronous standby and is not cut short by a deadline

    fence_old_primaries: bool = True  # False: a deposed primary that is back may be written to, and that is lost

    primary_read_share: float = 0.5  # of the pool size: what reads may take of the primary while replicas exist
    max_lag_seconds: float = 10.0  # a replica further behind gets no reads
    consistency_wait_seconds: float = 0.15  # for a replica to reach a required position, before the primary is asked
    probe_interval_seconds: float = 0.1
    probe_timeout_seconds: float = 0.3
    readmit_seconds: float = 1.0  # an ejected replica stays out for this long after it is well again, ± half

    @property
    def replica_names(self) -> tuple[str, ...]:
        return tuple(
            str(make_url(url).query.get("name", f"replica-{number}"))
            for number, url in enumerate(self.replica_urls, start=1)
        )

    def lock_seconds(self, *, on_replica: bool) -> float:
        return min(self.lock_timeout_seconds, self.replica_lock_timeout_seconds if on_replica else float("inf"))

    @property
    def behind_pooler(self) -> bool:
        """A pooler in transaction mode: no prepared statements, and nothing can be set per connection."""
        return self.statement_cache_size == 0

    @property
    def primary_read_connections(self) -> int:
        """Size of the pool that reads on the primary are held to, so that losing the replicas can't crush it."""
        if not self.replica_urls:
            return self.pool_size + self.pool_overflow
        return max(1, round(self.pool_size * self.primary_read_share))
