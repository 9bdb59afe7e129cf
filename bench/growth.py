"""Whether a worker grows under a long mixed load: a line fitted to its memory, sampled each second."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bench import memory
from bench.client import Client
from bench.load import run
from bench.mixed import Clients
from bench.report import Table
from bench.servers import Server, Servers
from bench.switches import MEBI, MEMORY_GOAL_MB
from bench.throughput import OWNER

CREATOR = "grower@example.com"
SAMPLE_SECONDS = 1.0
CONNECTIONS = 16
# The cache in memory fills up to its bound meanwhile: kept small, so that it is full before the line begins.
SETTINGS = {"CACHE_MEMORY_BYTES": str(4 * 1_048_576)}
STEADY_MB_PER_MINUTE = 1.0
Sample = tuple[float, int]  # seconds since the start, bytes


def growth(servers: Servers, seconds: int, tell: Callable[[str], None]) -> Table:
    with servers.passing_service("growing", **SETTINGS) as server:
        clients = Clients(Client.logged_in(server, OWNER), Client.registered(server, CREATOR))
        tell(f"a mixed load of {seconds} s, for memory")
        with ThreadPoolExecutor(1) as thread:
            load = thread.submit(run, clients.mix(server, CONNECTIONS), seconds, servers.cores.others)
            samples = _sampled(server, load.done)
            requests = load.result().requests
    return table(samples, requests)


def table(samples: Sequence[Sample], requests: int) -> Table:
    later = [sample for sample in samples if sample[0] >= samples[-1][0] / 2]
    slope, last = slope_mb_per_minute(later), samples[-1][1] / MEBI
    goals = (last <= MEMORY_GOAL_MB, slope <= STEADY_MB_PER_MINUTE)
    return Table(
        title=f"Memory of a worker under a mixed load of {samples[-1][0]:.0f} s, {requests:,} requests",
        columns=("", "measured", "goal", ""),
        rows=[
            ("PSS at the start, MB", f"{samples[0][1] / MEBI:.1f}", "", ""),
            ("PSS at the end, MB", f"{last:.1f}", f"at most {MEMORY_GOAL_MB}", _kept(goals[0])),
            ("growth, MB a minute", f"{slope:+.2f}", f"at most {STEADY_MB_PER_MINUTE}", _kept(goals[1])),
        ],
        notes="Growth: the slope of a line fitted to the second half of the samples, one a second.",
        figures={"samples": list(samples), "slope_mb_per_minute": slope, "requests": requests},
    )


def slope_mb_per_minute(samples: Sequence[Sample]) -> float:
    """By least squares; 0 below three samples."""
    if len(samples) < 3:
        return 0.0
    seconds, sizes = np.array(samples, dtype=float).T
    return float(np.polyfit(seconds / 60, sizes / MEBI, 1)[0])


def _sampled(server: Server, is_done: Callable[[], bool]) -> list[Sample]:
    started, samples = time.monotonic(), [(0.0, memory.of_worker(server).pss)]
    while not is_done():
        time.sleep(SAMPLE_SECONDS)
        samples.append((time.monotonic() - started, memory.of_worker(server).pss))
    return samples


def _kept(kept: bool) -> str:
    return "kept" if kept else "missed"
