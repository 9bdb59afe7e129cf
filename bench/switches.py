"""What each pattern costs: the service with all beside the service with all but one. And what a worker weighs."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any

from bench import memory
from bench.client import API, Client
from bench.load import Load, Subject, interleaved, ratios
from bench.memory import Memory
from bench.mixed import Clients
from bench.report import Table, spread
from bench.servers import Server, Servers
from bench.throughput import NEW_ITEM, OWNER

CREATOR = "creator-with-keys@example.com"
ON = "all on"
ALL_BUT = {
    "cache": {"CACHE_ENABLED": "false"},
    "cache in memory": {"CACHE_MEMORY_BYTES": "0"},
    "rate limits": {"RATE_LIMIT_ENABLED": "false"},
    "read your writes": {"CONSISTENCY_ENABLED": "false"},
    "idempotency": {"IDEMPOTENCY_ENABLED": "false"},
    "revocation": {"REVOCATION_ENABLED": "false"},
    "audit": {"AUDIT_ENABLED": "false"},
    "admission": {"ADMISSION_ENABLED": "false"},
    "metrics": {"METRICS_ENABLED": "false"},
    "log lines": {"LOG_LEVEL": "warning"},
    "metrics and log lines": {"METRICS_ENABLED": "false", "LOG_LEVEL": "warning"},
}
TRACED = "traces, 1% sampled"  # off unless there is a collector: its price is that of switching it on
GOALS = {"metrics and log lines": 1.03, TRACED: 1.10}
MEMORY_GOAL_MB = 150
REQUESTS = ("list, cached", "list, missed", "create, with a key", "mix")  # the last as of capacity
# Times two services, times the requests, times all patterns: some minutes. More rounds where 3% decide.
MAX_ROUNDS, ROUND_SECONDS, WARM_UP_SECONDS = 3, 1, 1
GOAL_ROUNDS = 4  # times as many
CONNECTIONS = 32
MEBI = 1_000_000
Tell = Callable[[str], None]
Loads = dict[str, list[Load]]


def patterns(servers: Servers, on: Server, tell: Tell, *, rounds: int, **_: int) -> Table:
    """`on` has every pattern. Each of the others runs beside it alone, in rounds that alternate."""
    clients = Clients(Client.logged_in(on, OWNER), Client.registered(on, CREATOR))
    measured: dict[str, tuple[Loads, Loads]] = {}
    weights: dict[str, Memory] = {"bare FastAPI": memory.of_worker(servers.baseline("bare"))}

    def beside(name: str, **settings: str) -> None:
        tell(f"starting the service: {name}")
        with servers.passing_service("without", **settings) as other:
            pairs = zip(_requests(on, clients), _requests(other, clients), strict=True)
            loads = interleaved(
                [subject for pair in pairs for subject in pair],
                rounds=min(rounds, MAX_ROUNDS) * (GOAL_ROUNDS if name in GOALS else 1),
                seconds=ROUND_SECONDS,
                cores=servers.cores.others,
                tell=lambda line: tell(f"{name}, {line}"),
                warm_up_seconds=WARM_UP_SECONDS,
            )
            measured[name] = _of(on, loads), _of(other, loads)
            weights[name] = memory.of_worker(other)

    for name, settings in ALL_BUT.items():
        beside(name, **settings)
    with collector() as endpoint:
        beside(TRACED, TRACES_ENDPOINT=endpoint)
    weights[ON] = memory.of_worker(on)
    return table(measured, weights)


def table(measured: Mapping[str, tuple[Loads, Loads]], weights: Mapping[str, Memory]) -> Table:
    """`measured` has the loads of all on and of the other service, by request."""
    found = {name: {request: price(name, *pair, request) for request in REQUESTS} for name, pair in measured.items()}
    rows = [
        (
            _title(name),
            *(spread(found[name][request]) for request in REQUESTS),
            _goal(name, found[name]),
            *_megabytes(weights[name]),
        )
        for name in measured
    ]
    least = [
        (name, *[""] * (len(REQUESTS) + 1), *_megabytes(weights[name])) for name in weights if name not in measured
    ]
    return Table(
        title="What each pattern costs: CPU time per request with it, over that without it",
        columns=("", *REQUESTS, "goal for the mix", "RSS MB", "PSS MB"),
        rows=[*rows, *least],
        notes="Medians (least to greatest) of the rounds: 1.05 is 5% dearer, 0.1 is ten times cheaper. Memory: of the\n"
        f"worker after its load, without the pattern (traces: with them); goal with all on: below {MEMORY_GOAL_MB} MB.",
        figures={
            "ratios": found,
            "memory": {name: asdict(weight) for name, weight in weights.items()},
            "loads": {
                name: [{key: [asdict(load) for load in loads] for key, loads in side.items()} for side in pair]
                for name, pair in measured.items()
            },
        },
    )


def price(name: str, on: Loads, other: Loads, request: str) -> list[float]:
    """Round by round, with over without: of traces it is the other service that has them."""
    dear, cheap = (other, on) if name == TRACED else (on, other)
    return ratios(dear[request], cheap[request], of="cpu_us")


def _requests(server: Server, clients: Clients) -> Iterator[Subject]:
    several, reader, with_key = f"{API}/equipment?limit=20", clients.reader, {"Idempotency-Key": "bench-{n}"}
    cached, missed, create, mix = (f"{server.name}: {request}" for request in REQUESTS)
    yield Subject(cached, server, several, reader.headers)
    yield Subject(missed, server, several.replace("?", "?limit={n}&"), reader.headers)
    yield Subject(create, server, f"{API}/equipment", clients.writer.headers | with_key, body=NEW_ITEM)
    yield replace(clients.mix(server, CONNECTIONS), name=mix)


def _of(server: Server, loads: Loads) -> Loads:
    return {request: loads[f"{server.name}: {request}"] for request in REQUESTS}


def _title(name: str) -> str:
    return name if name == TRACED else f"without {name}"


def _goal(name: str, found: Mapping[str, list[float]]) -> str:
    """Judged by the mix: the goal is one of the throughput."""
    if name not in GOALS:
        return ""
    ratio = median(found[REQUESTS[-1]])
    return f"at most {GOALS[name]:.2f}: {'kept' if ratio <= GOALS[name] else 'missed'}"


def _megabytes(weight: Memory) -> tuple[str, str]:
    return f"{weight.rss / MEBI:.0f}", f"{weight.pss / MEBI:.0f}"


@contextmanager
def collector() -> Iterator[str]:
    """Takes spans, and reports of errors, and forgets them."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Forgetful(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""
