"""`python -m bench.capacity`: how big a fleet 1,000 to 1,000,000 users take, and what it costs. See docs/capacity.md.

Ends with 1 where the model misses the points that were held out by more than 15%.
"""

import argparse
import json
import math
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import plots, report
from bench.assumptions import PRICES, Assumed, Measured
from bench.fleet import USERS, Plan, Worker, plan, usable
from bench.mixed import CONNECTIONS_EACH, measure
from bench.processes import BenchError
from bench.report import Table
from bench.servers import servers
from bench.usl import TOLERANCE, Check, Curve, checked

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Model:
    """Two laws: of one worker over its connections, and of a fleet over its workers; the plans follow from both."""

    measured: Measured
    assumed: Assumed
    worker: Curve
    workers: Curve
    checks: dict[str, Check]
    usable: Worker
    plans: list[Plan]

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks.values())


def model(measured: Measured, assumed: Assumed) -> Model:
    """The checks are made without the point that is held out; what is planned goes by all points."""
    try:
        checks = {
            "connections": checked(measured.rate_by_connections)[1],
            "workers": checked(measured.rate_by_workers)[1],
        }
    except ValueError as error:
        raise BenchError(f"too little was measured: {error}") from error
    worker, workers = Curve.fitted(measured.rate_by_connections), Curve.fitted(measured.rate_by_workers)
    share = usable(worker, measured, assumed)
    plans = [plan(users, workers, share, measured, assumed) for users in USERS]
    return Model(measured, assumed, worker, workers, checks, share, plans)


def tables(found: Model) -> Iterator[Table]:
    yield _laws(found)
    yield _fleets(found)
    yield _costs(found)


def _laws(found: Model) -> Table:
    curves = {"connections": found.worker, "workers": found.workers}
    return Table(
        title="The universal scalability law, and the point that it was not shown",
        columns=("over", "λ req/s", "contention σ", "coherence κ", "most at", "held out", "measured", "foretold", ""),
        rows=[
            (
                over,
                f"{curve.one:,.0f}",
                f"{curve.contention:.4f}",
                f"{curve.coherence:.6f}",
                f"{curve.best:,.0f}",
                f"{check.n}",
                f"{check.measured:,.0f}",
                f"{check.predicted:,.0f} ({check.error:+.0%})",
                "holds" if check.holds else f"off by more than {TOLERANCE:.0%}: believe nothing below",
            )
            for (over, curve), check in zip(curves.items(), found.checks.values(), strict=True)
        ],
    )


def _fleets(found: Model) -> Table:
    return Table(
        title="What so many users take",
        columns=("", *(f"{made.users:,} users" for made in found.plans)),
        rows=[
            _row("req/s at the peak", found, lambda made: f"{made.rate:,.0f}"),
            _row("p95 ms", found, lambda made: f"{made.p95_ms:.0f}"),
            _row("fleets side by side", found, lambda made: f"{made.fleets}"),
            _row("instances", found, lambda made: f"{made.instances}"),
            _row("workers", found, lambda made: f"{made.workers}"),
            _row("pool, a worker and server", found, lambda made: f"{made.pool}"),
            _row("Postgres primaries", found, lambda made: f"{made.primaries} × {made.postgres_vcpus} vCPU"),
            _row("replicas", found, lambda made: f"{made.replicas}"),
            _row("connections, a primary", found, lambda made: f"{made.primary_connections:,}"),
            _row("connections, a replica", found, lambda made: f"{made.replica_connections:,}"),
            _row("PgBouncer", found, lambda made: "yes" if made.pooler else "no"),
            _row("Redis nodes", found, lambda made: f"{made.redis}"),
            _row("memory for the cache, GB", found, lambda made: f"{made.redis_gb:.2f}"),
        ],
    )


def _costs(found: Model) -> Table:
    names = found.plans[0].dollars
    rows = [_row(name, found, lambda made, name=name: f"{made.dollars[name]:,.0f}") for name in names]
    rows.append(_row("together", found, lambda made: f"{made.total:,.0f}"))
    for by in dict.fromkeys(estimate["by"] for estimate in found.assumed.estimate):
        own = {estimate["users"]: estimate for estimate in found.assumed.estimate if estimate["by"] == by}
        rows.append(_row(f"estimate: {by}", found, lambda made, own=own: _estimate(own.get(made.users))))
    return Table(
        title="Dollars a month, by example prices (bench/prices.toml), beside what audits had estimated unmeasured",
        columns=("", *(f"{made.users:,} users" for made in found.plans)),
        rows=rows,
        notes="\n".join(
            f"{estimate['by']}, {estimate['users']:,} users: {estimate['says']}" for estimate in found.assumed.estimate
        ),
    )


def _estimate(estimate: dict | None) -> str:
    if estimate is None:
        return ""
    least, most = estimate["dollars"]
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _row(name: str, found: Model, cell) -> tuple[str, ...]:
    return (name, *(cell(made) for made in found.plans))


def assumptions(found: Model) -> Iterator[str]:
    """Every one: what is measured, how it is carried on, and each number of the table of prices."""
    measured, assumed, worker = found.measured, found.assumed, found.usable
    machine = measured.machine
    yield f"measured {machine.get('time', '')} on {machine.get('cores')} cores of {machine.get('cpu')}"
    mix = ", ".join(f"{measured.share(kind):.0%} {kind}" for kind in measured.mix)
    yield f"the mix: {mix}; lists of 20 and new items, by two people of two organizations"
    yield "over connections: the best round of each, since what else the machine does only lowers it"
    yield f"over workers: CPU time per request with all under load ({CONNECTIONS_EACH} connections each), over that"
    yield "  of one among as many idle loops, as if each had a core of its own; waits for what workers share show in σ"
    yield "  and κ only as far as they cost CPU time"
    if math.isinf(found.workers.limit):
        most = max(measured.worker_us_by_workers)
        yield f"  no contention showed up to {most} workers: a straight line, as nothing is for ever"
    yield f"a worker is used to {worker.share:.0%} of its peak, {worker.in_flight:.1f} in flight (Little's law)"
    yield "p95 is to the mean as in the median of measured cases; the way through the network and nginx is not in it"
    shared = {"primary": measured.primary_us, "replicas": measured.replicas_us, "Redis": measured.redis_us}
    for name, us in shared.items():
        yield f"CPU time per request of the mix, {name}: {us:.0f} µs, and their cores are as fast as those measured"
    yield f"a read holds a connection for {measured.read_ms:.1f} ms and a write for {measured.write_ms:.1f} ms, at most"
    yield "  (a whole request, one at a time); pools are for three deviations above the mean in use, all at one server"
    yield "Postgres needs no more for 1,000,000 users' rows than for those measured: every query has its index"
    yield f"an answer has {measured.answer_bytes:,} bytes, {measured.compressed_bytes:,} on the wire"
    memory = measured.worker_bytes * assumed.instance["workers"] / 1e9
    yield f"a worker takes {measured.worker_bytes / 1e6:.0f} MB, those of an instance {memory:.1f} GB"
    for table in ("load", "target", "instance", "other"):
        yield from (f"{table}.{name} = {value:,}" for name, value in getattr(assumed, table).items())
    for table in ("redundancy", "postgres", "redis"):
        for entry in getattr(assumed, table):
            yield f"{table}: " + ", ".join(f"{name} {value:,}" for name, value in entry.items())


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description="How much of everything users take.")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="saved measurements, without any load")
    parser.add_argument("--prices", type=Path, default=PRICES, help="(default: bench/prices.toml)")
    parser.add_argument("--rounds", type=int, default=5, help="of each load, interleaved (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of load per round (default %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS / "capacity.json", help="(default: bench/results/)")
    return parser.parse_args(arguments)


def load(options: argparse.Namespace) -> Measured:
    if options.source:
        return Measured.read(options.source)
    described = report.machine()
    print(report.describe(described))
    with report.progress() as tell, servers() as started:
        how = {"rounds": options.rounds, "seconds": options.seconds}
        found = measure(started, described, tell, **how)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(asdict(found), indent=1) + "\n")
    return found


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    assumed = Assumed.read(options.prices)
    found = model(load(options), assumed)
    for table in tables(found):
        print(table.text())
    print("\nAssumed, all of it:")
    for line in assumptions(found):
        print(f"  {line}")
    picture = (options.source or options.results).with_suffix(".svg")
    plots.capacity(picture, found)
    print(f"\n{picture}")
    return 0 if found.holds else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops what was started, as an interrupt does
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
