"""What the boards show."""

import json
from pathlib import Path

from deploy.grafana.panels import OURS, Board, Panel, as_json, quantile, quantiles, rate

FOLDER = Path(__file__).parent / "boards"
TAKEN = 'sum by (instance) (pg_stat_activity_count{job="postgres"})'
ALLOWED = 'sum by (instance) (pg_settings_max_connections{job="postgres"})'
IN_USE = f"sum by (instance, server) (postgres_pool_connections_in_use{{{OURS}}})"
LIMIT = f"sum by (instance, server) (postgres_pool_connections_limit{{{OURS}}})"
DURATION = "http_request_duration_seconds"
OPERATION = "postgres_operation"
FREE_MEMORY = 'node_memory_MemAvailable_bytes{job="host"} / node_memory_MemTotal_bytes{job="host"}'
FREE_DISK = 'node_filesystem_avail_bytes{job="host"} / node_filesystem_size_bytes{job="host"}'
IDLE = 'avg(rate(node_cpu_seconds_total{job="host",mode="idle"}[$__rate_interval]))'

REFUSAL, KIND = "criticality, reason", "kind, reason"

SERVICE = Board(
    "headroom-service",
    "Headroom: service",
    [
        Panel("Requests", "reqps", {"{{instance}}": rate("http_requests_total", "instance")}),
        Panel("Statuses", "reqps", {"{{status}}": rate("http_requests_total", "status")}),
        Panel("Share of 5xx", "percentunit", {"5 minutes": "headroom:error_ratio:rate5m"}, 0.01),
        Panel("Latency", "s", quantiles(DURATION), 1, exemplars=True),
        Panel("p95 by route", "s", {"{{handler}}": quantile(0.95, DURATION, "handler")}, exemplars=True),
        Panel("Requests by route", "reqps", {"{{handler}}": rate("http_requests_total", "handler")}),
        Panel("Error budget left", "percentunit", {"at the rate of 3 days": "1 - headroom:error_ratio:rate3d / 0.001"}),
        Panel(
            "Rate limiter", "reqps", {"{{outcome}} {{source}}": rate("rate_limit_decisions_total", "outcome, source")}
        ),
        Panel("Admission: in flight", "short", {"{{instance}}": f"admission_in_flight{{{OURS}}}"}),
        Panel("Admission: limit", "short", {"{{instance}}": f"admission_limit{{{OURS}}}"}),
        Panel("Admission: refused", "reqps", {"{{criticality}} {{reason}}": rate("admission_refused_total", REFUSAL)}),
        Panel("Credentials refused", "reqps", {"{{kind}} {{reason}}": rate("credentials_refused_total", KIND)}),
        Panel("From nginx to the worker, p99", "s", {"{{instance}}": quantile(0.99, "http_queue_seconds", "instance")}),
        Panel("Deadlines exceeded", "reqps", {"{{instance}}": rate("deadlines_exceeded_total", "instance")}),
        Panel("Idempotency", "reqps", {"{{outcome}}": rate("idempotency_requests_total", "outcome")}),
        Panel("nginx: requests", "reqps", {"all": 'rate(nginx_http_requests_total{job="nginx"}[$__rate_interval])'}),
        Panel("nginx: connections", "short", {"active": 'nginx_connections_active{job="nginx"}'}),
    ],
)
DATA = Board(
    "headroom-data",
    "Headroom: data",
    [
        Panel("Replica lag", "s", {"{{replica}}": "max by (replica) (postgres_replica_lag_seconds)"}, 5),
        Panel("Reads by server", "reqps", {"{{server}}": rate("postgres_reads_total", "server")}),
        Panel("Commits", "reqps", {"{{outcome}}": rate("postgres_commits_total", "outcome")}),
        Panel("Pool: share in use", "percentunit", {"{{instance}} {{server}}": f"{IN_USE} / {LIMIT}"}, 0.8),
        Panel("Pool: waits", "reqps", {"{{server}}": rate("postgres_pool_waits_total", "server")}),
        Panel("Connections held, p95", "s", {"{{route}}": quantile(0.95, "postgres_connection_hold_seconds", "route")}),
        Panel("Statements", "reqps", {"{{operation}}": rate(f"{OPERATION}_statements_total", "operation")}),
        Panel("Time in statements", "percentunit", {"{{operation}}": rate(f"{OPERATION}_seconds_total", "operation")}),
        Panel("Rows", "short", {"{{operation}}": rate(f"{OPERATION}_rows_total", "operation")}),
        Panel("Connections at Postgres", "percentunit", {"{{instance}}": f"{TAKEN} / {ALLOWED}"}, 0.8),
        Panel("Database size", "bytes", {"{{datname}}": 'max by (datname) (pg_database_size_bytes{job="postgres"})'}),
        Panel("Cache hit ratio", "percentunit", {"5 minutes": "headroom:cache_hit_ratio:rate5m"}, 0.5),
        Panel("Cache look-ups", "reqps", {"{{tier}} {{result}}": rate("cache_lookups_total", "tier, result")}),
        Panel("Redis: time of a pipeline", "s", quantiles("redis_pipeline_seconds")),
        Panel("Redis: memory", "bytes", {"used": "redis_memory_used_bytes", "at most": "redis_memory_max_bytes"}),
    ],
)
RESOURCES = Board(
    "headroom-resources",
    "Headroom: resources",
    [
        Panel("Memory by worker", "bytes", {"{{instance}} {{pid}}": f"worker_resident_memory_bytes{{{OURS}}}"}),
        Panel("Processors used", "short", {"{{instance}}": rate("worker_processor_seconds_total", "instance")}),
        Panel(
            "Event loop, p99 late", "s", {"{{instance}}": quantile(0.99, "event_loop_lag_seconds", "instance")}, 0.25
        ),
        Panel("Open descriptors", "short", {"{{instance}} {{pid}}": f"worker_open_descriptors{{{OURS}}}"}),
        Panel("Breakers open", "short", {"{{instance}} {{dependency}}": f"circuit_breaker_open{{{OURS}}}"}, 1),
        Panel("Draining", "short", {"{{instance}}": f"draining{{{OURS}}}"}),
        Panel("Machine: processors", "percentunit", {"busy": f"1 - {IDLE}"}, 0.9),
        Panel("Machine: memory", "percentunit", {"taken": f"1 - {FREE_MEMORY}"}, 0.9),
        Panel("Machine: disks", "percentunit", {"{{mountpoint}}": f"1 - {FREE_DISK}"}, 0.8),
    ],
)
BOARDS = (SERVICE, DATA, RESOURCES)


def text(board: Board) -> str:
    return json.dumps(as_json(board), indent=2) + "\n"


def write() -> None:
    for board in BOARDS:
        (FOLDER / f"{board.uid}.json").write_text(text(board))
