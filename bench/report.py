"""Tables for people, JSON for tools; both say which machine they come from."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from deploy.local import postgres
from deploy.local.options import ROOT

PACKAGES = ("fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "gunicorn", "sqlalchemy", "asyncpg", "redis")


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: str = ""
    figures: Any = field(default_factory=dict)  # what the rows were made of

    def text(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[number]) for line in lines) for number in range(len(self.columns))]
        aligned = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
        return "\n".join((f"\n{self.title}", aligned[0], "-" * len(aligned[0]), *aligned[1:], self.notes)).rstrip()


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(line, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, with the least and the greatest."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Tells on stderr what is going on: on a terminal in one line, in a log one below the other."""
    if sys.stderr.isatty():
        with tqdm(bar_format="{elapsed}  {desc}", leave=False) as line:
            yield line.set_description_str
        return
    started = time.monotonic()
    yield lambda text: print(f"{time.monotonic() - started:4.0f} s  {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    return {
        "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "revision": _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgres": _output(postgres.program("postgres"), "--version"),
        "redis": _output("redis-server", "--version"),
        "packages": {name: version(name) for name in PACKAGES},
    }


def describe(machine: dict[str, Any]) -> str:
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory']}, {machine['system']}, "
        f"Python {machine['python']}, {machine['postgres']}; load before the run: {machine['load_before']:.1f}"
    )


def save(path: Path, described: dict[str, Any], tables: Sequence[Table]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": described, "tables": [asdict(table) for table in tables]}
    path.write_text(json.dumps(found, indent=1) + "\n")


def _field(path: str, name: str) -> str:
    lines = Path(path).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "unknown")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
    except OSError:
        return "unknown"
