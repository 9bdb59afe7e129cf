"""`python -m bench`: all measurements, as tables on the screen and as JSON in bench/results."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from app.settings import Settings
from bench import audit, growth, layers, paging, plots, report, switches, throughput
from bench.processes import BenchError
from bench.servers import Servers, servers

RESULTS = Path(__file__).parent / "results"
PARTS = ("audit", "throughput", "patterns", "memory", "layers", "paging")
LIST_ROWS, LARGE_LIST_ROWS = 200_000, 1_000_000
Tell = Callable[[str], None]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the service beside its baselines.")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="of each subject, interleaved (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of load per round (default %(default)s)")
    parser.add_argument("--large", action="store_true", help=f"page through {LARGE_LIST_ROWS:,} items: takes minutes")
    parser.add_argument("--soak", type=int, default=60, help="seconds of load for memory (default %(default)s)")
    parser.add_argument("--results", type=Path, help="where the JSON goes (default: bench/results, of a whole run)")
    return parser.parse_args(arguments)


def measure(servers: Servers, options: argparse.Namespace, tell: Tell) -> Iterator[report.Table]:
    how = {"rounds": options.rounds, "seconds": options.seconds}
    tell("starting Postgres, its replicas and Redis")
    servers.start_data()
    servers.seed()
    uncached = servers.service("uncached", CACHE_ENABLED="false")
    if "audit" in options.only:
        tell("seeding documents of 50 KB")
        servers.seed("--document-bytes", str(audit.DOCUMENT_BYTES))
        yield audit.audit(uncached)
    cached = servers.service("cached") if {"throughput", "patterns"} & {*options.only} else uncached
    if "throughput" in options.only:
        yield throughput.throughput(servers, cached, uncached, tell, **how)
    if "patterns" in options.only:
        yield switches.patterns(servers, cached, tell, **how)
    if "memory" in options.only:
        yield growth.growth(servers, options.soak, tell)
    if "layers" in options.only:
        tell("reading by layer")
        yield layers.layers(Settings(**servers.settings()), servers.cores.server)
    if "paging" in options.only:
        rows = LARGE_LIST_ROWS if options.large else LIST_ROWS
        tell(f"seeding {rows:,} items")
        servers.seed("--rows", str(rows), "--checkouts", "0")
        yield paging.paging(servers, uncached, rows, tell, **how)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops what was started, as an interrupt does
    options = parse()
    described = report.machine()
    print(report.describe(described))
    tables = []
    with report.progress() as tell, servers() as started:
        for table in measure(started, options, tell):
            tables.append(table)
            tqdm.write(table.text(), file=sys.stdout)
    if options.results or set(options.only) == set(PARTS):
        name = "large.json" if options.large else "standard.json"
        path = options.results or RESULTS / name
        report.save(path, described, tables)
        plots.results(path.with_suffix(".svg"), tables)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
