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
from bench.switches import MEBI, MEMORY_GOAL_MB, collector
from bench.throughput import OWNER

CREATOR = "grower@example.com"
SAMPLE_SECONDS = 1.0
CONNECTIONS = 16
STEADY_MB_PER_MINUTE = 1.0
Sample = tuple[float, int, int]  # seconds since the start; bytes: PSS, RSS


def growth(servers: Servers, seconds: int, tell: Callable[[str], None]) -> Table:
    """With everything on, traces and reports of errors too; its cache in memory is full long before the line begins."""
    with collector() as url, servers.passing_service("growing", **everything(url)) as server:
        clients = Clients(Client.logged_in(server, OWNER), Client.registered(server, CREATOR))
        tell(f"a mixed load of {seconds} s, for memory")
        with ThreadPoolExecutor(1) as thread:
            load = thread.submit(run, clients.mix(server, CONNECTIONS), seconds, servers.cores.others)
            samples = _sampled(server, load.done)
            requests = load.result().requests
    return table(samples, requests)


def everything(url: str) -> dict[str, str]:
    """What is off by default, since it needs somebody to send to."""
    return {"TRACES_ENDPOINT": url, "SENTRY_DSN": url.replace("://", "://key@") + "/1"}


def table(samples: Sequence[Sample], requests: int) -> Table:
    later = [sample for sample in samples if sample[0] >= samples[-1][0] / 2]
    slope = slope_mb_per_minute(later)
    _, *first = samples[0]
    _, *last = samples[-1]
    return Table(
        title=f"Memory of a worker under a mixed load of {samples[-1][0]:.0f} s, {requests:,} requests",
        columns=("", "at the start", "at the end", "goal", ""),
        rows=[
            *(_size(kind, *sizes) for kind, *sizes in zip(("PSS", "RSS"), first, last, strict=True)),
            ("growth, MB a minute", "", f"{slope:+.2f}", *_goal(slope, STEADY_MB_PER_MINUTE)),
        ],
        notes="Everything on, traces and reports of errors too; the cache in memory (CACHE_MEMORY_BYTES) is full\n"
        "at the end. Growth: the slope of a line fitted to the second half of the samples of PSS, one a second.",
        figures={"samples": list(samples), "slope_mb_per_minute": slope, "requests": requests},
    )


def slope_mb_per_minute(samples: Sequence[Sample]) -> float:
    """By least squares; 0 below three samples."""
    if len(samples) < 3:
        return 0.0
    seconds, sizes, _ = np.array(samples, dtype=float).T
    return float(np.polyfit(seconds / 60, sizes / MEBI, 1)[0])


def _sampled(server: Server, is_done: Callable[[], bool]) -> list[Sample]:
    started = time.monotonic()
    samples = [_sample(server, started)]
    while not is_done():
        time.sleep(SAMPLE_SECONDS)
        samples.append(_sample(server, started))
    return samples


def _sample(server: Server, started: float) -> Sample:
    found = memory.of_worker(server)
    return time.monotonic() - started, found.pss, found.rss


def _size(kind: str, first: int, last: int) -> tuple[str, ...]:
    now = last / MEBI
    return f"{kind}, MB", f"{first / MEBI:.1f}", f"{now:.1f}", *_goal(now, MEMORY_GOAL_MB)


def _goal(found: float, most: float) -> tuple[str, str]:
    return f"at most {most}", "kept" if found <= most else "missed"
