"""Load by wrk, in rounds: each subject in turn, so that what else the machine does meets all of them alike."""

import json
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.processes import BenchError, pinned
from bench.servers import Server

SCRIPT = Path(__file__).with_name("wrk.lua")
WARM_UP_SECONDS = 3
PATIENT_SECONDS = 9  # below wrk's timeout of 10


@dataclass(frozen=True, slots=True)
class Subject:
    """A request that is sent again and again; `{n}` in its path and body is a number that it has never been before.

    With a body it is a POST, and `{n}` is one in its headers too, unless another script makes something else of it.
    """

    name: str
    server: Server
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    connections: int = 32
    script: Path = SCRIPT
    arguments: tuple[str, ...] = ()  # of the script, behind its own


class FailedLoad(BenchError):
    """Not all of its requests were answered as they should be."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw. `cpu_us` is the server's CPU time per request, which other loads hardly change."""

    requests: int
    rate: float  # requests per second
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    cpu_us: float


def interleaved(
    subjects: Sequence[Subject],
    *,
    rounds: int,
    seconds: int,
    cores: str,
    tell: Callable[[str], None],
    warm_up_seconds: int = WARM_UP_SECONDS,
) -> dict[str, list[Load]]:
    """The loads of each subject by its name, one per round. Every other round goes backwards: none is always last."""
    loads: dict[str, list[Load]] = {subject.name: [] for subject in subjects}
    for subject in subjects:
        tell(f"warming up: {subject.name}")
        _wrk(subject, warm_up_seconds, cores)  # whose failures count for nothing, as the rest of it
    for number in range(rounds):
        for subject in subjects if number % 2 == 0 else reversed(subjects):
            tell(f"round {number + 1} of {rounds}: {subject.name}")
            loads[subject.name].append(run(subject, seconds, cores))
    return loads


def run(subject: Subject, seconds: int, cores: str) -> Load:
    """Raises `BenchError` if a single request failed, twice: a machine that is busy otherwise refuses some at times."""
    try:
        return _run(subject, seconds, cores)
    except FailedLoad:
        return _run(subject, PATIENT_SECONDS, cores)


def _run(subject: Subject, seconds: int, cores: str) -> Load:
    before = subject.server.cpu_seconds()
    seen = _wrk(subject, seconds, cores)
    cpu = subject.server.cpu_seconds() - before
    if not seen["requests"]:
        raise FailedLoad(f"{subject.name}: no answer in {seconds} s; is the machine busy with something else?")
    if seen["failed"] or seen["refused"]:  # figures with failures compare nothing
        told = f"{subject.name}: {seen['failed']} failed and {seen['refused']} refused of {seen['requests']}"
        raise FailedLoad(f"{told}\n{subject.server.last_refusal()}")
    return Load(
        requests=seen["requests"],
        rate=seen["requests"] / seen["microseconds"] * 1e6,
        p50_ms=seen["p50_us"] / 1e3,
        p90_ms=seen["p90_us"] / 1e3,
        p95_ms=seen["p95_us"] / 1e3,
        p99_ms=seen["p99_us"] / 1e3,
        cpu_us=cpu / seen["requests"] * 1e6,
    )


def _wrk(subject: Subject, seconds: int, cores: str) -> dict[str, int]:
    """What wrk.lua tells."""
    done = subprocess.run(_command(subject, seconds, cores), check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"wrk failed: {done.stderr or done.stdout}")
    seen: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return seen


def ratios(loads: Sequence[Load], base: Sequence[Load], of: str = "rate") -> list[float]:
    """Round by round, since both sides of a round met the same machine."""
    return [getattr(a, of) / getattr(b, of) for a, b in zip(loads, base, strict=True)]


def middle(loads: Sequence[Load], of: str) -> float:
    return float(median(getattr(load, of) for load in loads))


def _command(subject: Subject, seconds: int, cores: str) -> list[str]:
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchError("wrk is not installed (on Debian and Ubuntu: apt-get install wrk)")
    command = [wrk, "--threads=1", f"--connections={subject.connections}", f"--duration={seconds}s", "--timeout=10s"]
    for name, value in subject.headers.items():
        command += ["--header", f"{name}: {value}"]
    command += ["--script", str(subject.script), f"{subject.server.url}{subject.path}"]
    body = [] if subject.body is None else [subject.body]
    return pinned([*command, "--", str(secrets.randbits(40)), *body, *subject.arguments], cores)
