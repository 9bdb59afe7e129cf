"""Programs run for the time of a measurement, each on the cores that it is given."""

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.local.programs import Program

START_SECONDS = 120
POLL_SECONDS = 0.05
PORTS = (20_000, 32_000)


class BenchError(RuntimeError):
    """Something that the person at the terminal can do something about; the message says what."""


@dataclass(frozen=True, slots=True)
class Cores:
    """As taskset(1) takes them: one for the server that is measured, the rest for its clients and its data services."""

    server: str
    others: str

    @classmethod
    def divided(cls) -> Self:
        first, *rest = sorted(os.sched_getaffinity(0))
        return cls(str(first), ",".join(map(str, rest)) or str(first))


def pinned(command: list[str], cores: str) -> list[str]:
    """The command on these cores; unchanged where there is no taskset."""
    taskset = shutil.which("taskset")
    return [taskset, "--cpu-list", cores, *command] if taskset else command


@contextmanager
def running(program: Program, cores: str, log: Path) -> Iterator[int]:
    """Its process id, once it is ready."""
    environment = {**os.environ, **program.environment}
    with log.open("ab") as output:
        process = subprocess.Popen(
            pinned(program.command, cores),
            env=environment,
            cwd=program.folder,
            user=program.user,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # an interrupt from the terminal reaches this program alone, which stops the others
        )
    try:
        _wait_until_ready(program, process, log)
        yield process.pid
    finally:
        process.send_signal(program.stop_signal)
        try:
            process.wait(program.stop_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(program: Program, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while not program.is_ready():
        if process.poll() is not None or time.monotonic() > end:
            raise BenchError(f"{program.name} did not start:\n{log.read_text(errors='replace')[-2_000:]}")
        time.sleep(POLL_SECONDS)


def cpu_seconds(pid: int) -> float:
    """Of the process and those that it has started, since their start."""
    family = [pid]
    for parent in family:
        family += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return sum(map(_own_cpu_seconds, family))


def _own_cpu_seconds(pid: int) -> float:
    """By the clock that clock_getcpuclockid(3) names, in nanoseconds; /proc counts in hundredths of a second."""
    return time.clock_gettime((~pid << 3) | 2)


def free_ports(count: int = 1) -> int:
    """The first of so many adjacent ones, below those that the kernel gives to outgoing connections."""
    while True:
        first = random.randrange(*PORTS)
        if all(map(_is_free, range(first, first + count))):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
