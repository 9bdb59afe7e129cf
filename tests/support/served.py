"""The service in a process of its own, so that it shares no interpreter with the load."""

import asyncio
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.settings import Settings
from tests.support.api import environment_of
from tests.support.stack import Service, free_ports

PROJECT = Path(__file__).parents[2]


@asynccontextmanager
async def served(settings: Settings, folder: Path, **environment: str) -> AsyncIterator[int]:
    """Its port. One worker, uvicorn's event loop and parser as in production."""
    [port] = free_ports(1)
    service = Service(
        "api",
        [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--loop", "uvloop", "--no-access-log"],
        lambda: is_alive(port),
        folder / f"api-{port}.log",
        {"PYTHONPATH": str(PROJECT), "LOG_LEVEL": "error", **environment_of(settings), **environment},
        as_service=False,
    )
    try:
        service.start(wait=False)
        await asyncio.to_thread(service.wait_until_ready)
        yield port
    finally:
        await asyncio.to_thread(service.stop)


def is_alive(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def metric(port: int, name: str) -> float:
    """The value of a metric without labels, or of the series that is named."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
    raise LookupError(name)
