"""How big a fleet is for so many users, and what that costs a month: arithmetic on what is measured and assumed."""

import math
from dataclasses import dataclass
from statistics import median

from app.platform.postgres.budget import PROBES, Fleet, primary_pools, replica_pools
from app.platform.postgres.options import DatabaseOptions
from bench.assumptions import Assumed, Measured
from bench.processes import BenchError
from bench.usl import Curve

USERS = (1_000, 10_000, 100_000, 1_000_000)
MAX_FLEETS, MAX_WORKERS = 100, 10_000
MONTH_SECONDS = 365.25 * 86_400 / 12
STEPS = 1_000


@dataclass(frozen=True, slots=True)
class Worker:
    """The share of a worker's throughput that may be used, and what a request takes then."""

    share: float
    in_flight: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Plan:
    users: int
    rate: float  # requests per second, at the peak
    p95_ms: float
    fleets: int  # side by side, each with its tenants, its databases and its Redis; the numbers below are of all
    instances: int
    workers: int
    pool: int  # per worker and server
    primaries: int
    replicas: int
    postgres_vcpus: int  # of each
    primary_connections: int  # at each primary; as many as its workers may open
    replica_connections: int
    pooler: bool  # where a server takes fewer connections
    redis: int
    redis_gb: float  # of memory, needed
    dollars: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.dollars.values())


def usable(curve: Curve, measured: Measured, assumed: Assumed) -> Worker:
    """As much of a worker as the target allows and as keeps p95; its peak is sought no further than was measured."""
    most, limit_ms = max(measured.rate_by_connections), assumed.target["p95_ms"]
    points = [1 + (most - 1) * step / STEPS for step in range(STEPS + 1)]
    peak = max(map(curve.at, points))
    # p95 in milliseconds per second of the mean, which is N/X by Little's law.
    tail = median(p95 * measured.rate_by_connections[n] / n for n, p95 in measured.p95_ms_by_connections.items())
    found = [
        Worker(curve.at(n) / peak, n, tail * n / curve.at(n))
        for n in points
        if tail * n / curve.at(n) <= limit_ms and curve.at(n) <= peak * assumed.target["utilisation"]
    ]
    if not found:  # one at a time is more than that share already
        alone = Worker(assumed.target["utilisation"], 1, tail / curve.one)
        if alone.p95_ms > limit_ms:
            raise BenchError(
                f"one request at a time takes {alone.p95_ms:.0f} ms at p95: no fleet reaches {limit_ms:.0f}"
            )
        return alone
    return max(found, key=lambda worker: worker.share)


def plan(users: int, workers: Curve, worker: Worker, measured: Measured, assumed: Assumed) -> Plan:
    rate = users * assumed.load["requests_per_user"]
    least, per_instance = assumed.at_least(users), int(assumed.instance["workers"])
    fleets, needed = _fleets(rate, workers, worker.share)
    each = max(least["instances"], math.ceil(needed / per_instance) + least["spare_instances"])
    processes, own_rate = each * per_instance, rate / fleets
    size, primaries, replicas = _postgres(own_rate, least["replicas"], measured, assumed)
    pool = _pool(own_rate / processes, measured, assumed)
    options = DatabaseOptions("", ("postgresql://replica",) * replicas, pool_size=pool, pool_overflow=0)
    connections = [
        Fleet(each, per_instance).processes * (sum(pools) + PROBES)
        for pools in (primary_pools(options), replica_pools(options))
    ]
    memory = users * assumed.load["concurrent_share"] * assumed.load["entries_per_user"] * measured.answer_bytes / 1e9
    shards, redis_dollars = _redis(_cores(measured.redis_us, own_rate, assumed), memory / fleets, assumed)
    redis = fleets * shards * (1 + least["redis_replicas"])
    servers = fleets * primaries * (1 + replicas)
    stored = users * assumed.load["stored_kb_per_user"] / 1e6 * (1 + replicas)
    sent = rate * assumed.load["average_share"] * MONTH_SECONDS * measured.compressed_bytes / 1e9
    other = assumed.other
    return Plan(
        users=users,
        rate=rate,
        p95_ms=worker.p95_ms,
        fleets=fleets,
        instances=fleets * each,
        workers=fleets * processes,
        pool=pool,
        primaries=fleets * primaries,
        replicas=fleets * primaries * replicas,
        postgres_vcpus=int(size["vcpus"]),
        primary_connections=connections[0],
        replica_connections=connections[1] if replicas else 0,
        pooler=connections[0] > size["connections"],
        redis=redis,
        redis_gb=memory,
        dollars={
            "instances": fleets * each * assumed.instance["dollars"],
            "Postgres": servers * size["dollars"] + stored * other["storage_gb"],
            "Redis": redis * redis_dollars,
            "balancer": fleets * other["load_balancer"],
            "egress": sent * other["egress_gb"],
            "monitoring": other["monitoring"] + other["monitoring_each"] * (fleets * each + servers + redis),
        },
    )


def _cores(us: float, rate: float, assumed: Assumed) -> float:
    return us * rate / 1e6 / assumed.target["utilisation"]


def _fleets(rate: float, workers: Curve, share: float) -> tuple[int, int]:
    """How many fleets side by side, and the workers of each: one, unless the law says that one never gets there."""
    most = int(min(MAX_WORKERS, max(1.0, workers.best)))
    for fleets in range(1, MAX_FLEETS + 1):
        for needed in range(1, most + 1):
            if workers.at(needed) * share >= rate / fleets:
                return fleets, needed
    raise BenchError(f"{rate:,.0f} requests per second are out of reach of {MAX_FLEETS} fleets, as measured")


def _postgres(
    rate: float, least_replicas: int, measured: Measured, assumed: Assumed
) -> tuple[dict[str, float], int, int]:
    """The size, the primaries, and the replicas of each.

    The smallest size that one primary is enough of, else as many of the greatest: then tenants are divided. Where no
    replica is asked for, the primary reads as well.
    """
    sizes = sorted(assumed.postgres, key=lambda size: size["vcpus"])
    writing, reading = (_cores(us, rate, assumed) for us in (measured.primary_us, measured.replicas_us))
    alone = next((size for size in sizes if size["vcpus"] >= writing + reading), None)
    if alone and not least_replicas:
        return alone, 1, 0
    size = next((size for size in sizes if size["vcpus"] >= writing), sizes[-1])
    primaries = max(1, math.ceil(writing / size["vcpus"]))
    return size, primaries, max(least_replicas, math.ceil(reading / primaries / size["vcpus"]))


def _redis(cores: float, memory_gb: float, assumed: Assumed) -> tuple[int, float]:
    """Shards, and the price of each."""
    sizes = sorted(assumed.redis, key=lambda size: size["memory_gb"])
    shards = max(1, math.ceil(cores), math.ceil(memory_gb / sizes[-1]["memory_gb"]))
    return shards, next(size["dollars"] for size in sizes if size["memory_gb"] >= memory_gb / shards)


def _pool(rate: float, measured: Measured, assumed: Assumed) -> int:
    """Connections in use by Little's law, and three deviations of a Poisson distribution above."""
    held_ms = measured.share("missed") * measured.read_ms + measured.share("written") * measured.write_ms
    used = rate * held_ms / 1e3
    return max(int(assumed.target["smallest_pool"]), math.ceil(used + 3 * math.sqrt(used)))
