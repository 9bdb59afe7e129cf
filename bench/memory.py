"""What workers take of memory: RSS counts what is shared in each of them, PSS the process's share of it."""

from dataclasses import dataclass
from pathlib import Path

from bench.servers import Server

KIB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    rss: int  # bytes
    pss: int


def of_worker(server: Server) -> Memory:
    """Of the worker, or the mean of several; the master above them is not counted."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    found = [_of(int(pid)) for pid in children]
    return Memory(sum(one.rss for one in found) // len(found), sum(one.pss for one in found) // len(found))


def _of(pid: int) -> Memory:
    """From proc(5)'s smaps_rollup, in KiB there."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {name: int(rest.split()[0]) * KIB for name, _, rest in (line.partition(":") for line in lines[1:])}
    return Memory(sizes["Rss"], sizes["Pss"])
