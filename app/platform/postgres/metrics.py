"""What the room counts. `server` is "primary", "primary-read" or a replica's name: bounded by the configuration."""

from prometheus_client import Counter, Gauge, Histogram

READS = Counter("postgres_reads_total", "Read sessions by the server that was chosen", ("server",))
READ_REQUIREMENTS = Counter(
    "postgres_read_requirements_total",
    "Reads that required a WAL position, by how it was met: at_once, waited, or primary",
    ("met",),
)
DIVERSIONS = Counter(
    "postgres_read_diversions_total", "Reads that failed on one server and went on to another", ("server",)
)
EJECTIONS = Counter("postgres_replica_ejections_total", "Replicas taken out of use, by reason", ("replica", "reason"))
LAG_BYTES = Gauge("postgres_replica_lag_bytes", "WAL not yet replayed", ("replica",), multiprocess_mode="livemax")
LAG_SECONDS = Gauge(
    "postgres_replica_lag_seconds", "Age of the oldest WAL not yet replayed", ("replica",), multiprocess_mode="livemax"
)
REPLICA_ELIGIBLE = Gauge(
    "postgres_replica_eligible", "1 while reads may go to the replica", ("replica",), multiprocess_mode="livemin"
)
COMMITS = Counter("postgres_commits_total", "COMMITs by outcome: committed, failed or unknown", ("outcome",))
PRIMARY_CHANGES = Counter("postgres_primary_changes_total", "Times that another host was found to be the primary")
PRIMARIES_REFUSED = Counter(
    "postgres_primaries_refused_total", "Connections refused to a server that was deposed and says it is the primary"
)

QUERIES = Counter("postgres_queries_total", "Statements sent", ("server",))
QUERY_SECONDS = Counter("postgres_query_seconds_total", "Time spent in statements", ("server",))
POOL_OPEN = Gauge("postgres_pool_connections", "Connections open", ("server",), multiprocess_mode="livesum")
POOL_IN_USE = Gauge("postgres_pool_connections_in_use", "Connections in use", ("server",), multiprocess_mode="livesum")
POOL_LIMIT = Gauge(
    "postgres_pool_connections_limit", "Connections that may be open at most", ("server",), multiprocess_mode="livesum"
)
POOL_WAITS = Counter("postgres_pool_waits_total", "Times that a connection was not at hand", ("server",))
POOL_WAIT_SECONDS = Counter("postgres_pool_wait_seconds_total", "Time spent waiting for a connection", ("server",))
POOL_TIMEOUTS = Counter("postgres_pool_timeouts_total", "Waits for a connection that ended without one", ("server",))
HOLD_SECONDS = Histogram(
    "postgres_connection_hold_seconds",
    "Time from taking a connection out of the pool to giving it back, by endpoint",
    ("server", "route"),
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0),
)
