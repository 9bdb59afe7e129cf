"""The load that the capacity model goes by: mostly cached lists, some that nothing has cached, and writes."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from operator import truediv
from pathlib import Path
from statistics import median
from typing import Any

from bench import memory
from bench.assumptions import Measured
from bench.client import API, Client
from bench.load import Load, Subject, interleaved, middle, run
from bench.processes import BenchError, cpu_seconds, pinned
from bench.servers import Server, Servers
from bench.throughput import CREATOR, NEW_ITEM, OWNER

MIX = {"cached": 14, "missed": 5, "written": 1}
CONNECTIONS = (1, 2, 4, 8, 16, 32, 64)
WORKERS = (1, 2, 3, 4, 6)
CONNECTIONS_EACH = 8  # while several workers are loaded
SCRIPT = Path(__file__).with_name("mix.lua")
DISTINCT = f"{API}/equipment?limit={{n}}&limit=20"
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Clients:
    """A reader, and a writer of another organization: in a real day, those who write are seldom those who read."""

    reader: Client
    writer: Client

    def mix(self, server: Server, connections: int) -> Subject:
        numbers = (str(sum(MIX.values())), str(MIX["missed"]), str(MIX["written"]))
        return Subject(
            f"{server.name}, {connections} connections",
            server,
            DISTINCT,
            self.reader.headers,
            body=NEW_ITEM,
            connections=connections,
            script=SCRIPT,
            arguments=(self.writer.headers["Authorization"], *numbers),
        )


def measure(servers: Servers, machine: dict[str, Any], tell: Tell, *, rounds: int, seconds: int) -> Measured:
    """Takes about `rounds` × `seconds` × 20, and the start of six instances. `servers` has no data services yet."""
    tell("starting Postgres, its replicas and Redis")
    servers.start_data()
    servers.seed()
    first = servers.service("api-1")
    clients = Clients(Client.logged_in(first, OWNER), Client.registered(first, CREATOR))
    how = {"rounds": rounds, "seconds": seconds, "cores": servers.cores.others, "tell": tell}
    by_connections = dict(
        zip(CONNECTIONS, interleaved([clients.mix(first, n) for n in CONNECTIONS], **how).values(), strict=True)
    )
    best = {n: max(loads, key=lambda load: load.rate) for n, loads in by_connections.items()}
    alone = interleaved(
        [
            Subject("missed", first, DISTINCT, clients.reader.headers, connections=1),
            Subject("written", first, f"{API}/equipment", clients.writer.headers, body=NEW_ITEM, connections=1),
        ],
        **how,
    )
    worker_bytes = memory.of_worker(first).pss
    tell("starting more instances")  # no sooner: each takes a little of the core that was measured
    instances = [first, *(servers.service(f"api-{number}") for number in range(2, max(WORKERS) + 1))]
    together = Together(servers, [clients.mix(instance, CONNECTIONS_EACH) for instance in instances], seconds)
    together.interleaved(rounds, tell)
    page = json.dumps(clients.reader.get("/equipment", limit=20).json).encode()
    return Measured(
        machine=machine,
        mix=MIX,
        rate_by_connections={n: load.rate for n, load in best.items()},
        p95_ms_by_connections={n: load.p95_ms for n, load in best.items()},
        worker_us_by_workers=together.worker_us(),
        primary_us=together.shared("postgres-primary"),
        replicas_us=together.shared("postgres-replica"),
        redis_us=together.shared("redis"),
        read_ms=middle(alone["missed"], "p50_ms"),
        write_ms=middle(alone["written"], "p50_ms"),
        answer_bytes=len(page),
        compressed_bytes=len(gzip.compress(page, 6)),
        worker_bytes=worker_bytes,
    )


class Together:
    """Several workers under load at once: CPU time per request, since the rate would tell of this machine's cores.

    Workers that share a core serve less each, and with less of their work in one go each request costs more, whatever
    they share besides. So each number of workers is compared with one worker among as many idle loops on its core.
    """

    def __init__(self, servers: Servers, subjects: list[Subject], seconds: int) -> None:
        self._together_us: dict[int, list[float]] = {n: [] for n in WORKERS}
        self._crowded_us: dict[int, list[float]] = {n: [] for n in WORKERS}
        self._servers = servers
        self._subjects = subjects
        self._seconds = seconds
        self._shared_us: dict[str, list[float]] = {name: [] for name in servers.data}

    def interleaved(self, rounds: int, tell: Tell) -> None:
        for number in range(rounds):
            for workers in WORKERS:
                tell(f"round {number + 1} of {rounds}: {workers} workers")
                self._round(workers)

    def worker_us(self) -> dict[int, float]:
        """By the number of workers: what a request takes of one, times what sharing with the others adds."""
        alone = median(self._together_us[1] + self._crowded_us[1])
        return {1: alone} | {
            n: alone * median(map(truediv, self._together_us[n], self._crowded_us[n])) for n in WORKERS if n > 1
        }

    def shared(self, prefix: str) -> float:
        """CPU time per request of the data services whose name begins so."""
        return sum(median(found) for name, found in self._shared_us.items() if name.startswith(prefix))

    def _round(self, workers: int) -> None:
        self._crowded_us[workers].append(self._crowded(workers))
        before = self._data_seconds()
        loads = self._load(self._subjects[:workers])
        requests = sum(load.requests for load in loads)
        self._together_us[workers].append(sum(load.cpu_us * load.requests for load in loads) / requests)
        for name, seconds in self._data_seconds().items():
            self._shared_us[name].append((seconds - before[name]) / requests * 1e6)

    def _crowded(self, workers: int) -> float:
        cores = self._servers.cores
        with idle_loops(workers - 1, cores.server):
            return run(self._subjects[0], self._seconds, cores.others).cpu_us

    def _load(self, subjects: list[Subject]) -> list[Load]:
        with ThreadPoolExecutor(len(subjects)) as threads:
            started = [threads.submit(run, one, self._seconds, self._servers.cores.others) for one in subjects]
            return [future.result() for future in started]

    def _data_seconds(self) -> dict[str, float]:
        if not self._servers.data:
            raise BenchError("no data services run")
        return {name: cpu_seconds(pid) for name, pid in self._servers.data.items()}


@contextmanager
def idle_loops(count: int, cores: str) -> Iterator[None]:
    """Programs that do nothing, all the time."""
    command = pinned([sys.executable, "-c", "while True: pass"], cores)
    started = [subprocess.Popen(command, process_group=0) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
