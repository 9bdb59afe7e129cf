"""The native stack for tests: what `make up` starts, on ports and in a folder of its own."""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.seed import PASSWORD
from tests.support.stack import temporary_folder

ROOT = Path(__file__).parents[2]
LOGIN = {"email": "demo@example.com", "password": PASSWORD}
VERB_SECONDS = 180
RECOVERY_SECONDS = 90
POLL_SECONDS = 0.2
# Below those that the kernel gives to outgoing connections.
FIRST_PORT, LAST_PORT = 20_000, 32_000
PORTS = {"HTTP_PORT": 0, "HTTPS_PORT": 1, "OPS_PORT": 2, "REDIS_PORT": 3, "API_BASE_PORT": 4, "POSTGRES_BASE_PORT": 10}
PORTS |= {"OBSERVE_BASE_PORT": 20, "WORKER_PORT": 38, "PGBOUNCER_PORT": 39}
BLOCK = 40


@dataclass(frozen=True, slots=True)
class NativeStack:
    folder: Path
    settings: dict[str, str]

    def run(self, *verb: str) -> subprocess.CompletedProcess[str]:
        """`make VERB`, without make."""
        return subprocess.run(
            [sys.executable, "-m", "deploy.local", *verb],
            cwd=ROOT,
            env={**os.environ, **self.settings},
            capture_output=True,
            text=True,
            timeout=VERB_SECONDS,
            check=False,
        )

    def must(self, *verb: str) -> str:
        done = self.run(*verb)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.must("status", "--format", "json"))
        return status

    def pid(self, name: str) -> int:
        pids = [process["pid"] for process in self.status()["processes"] if process["name"] == name]
        assert pids, f"{name} is not running"
        return int(pids[0])

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.settings['HTTP_PORT']}"

    @property
    def https(self) -> str:
        return f"https://127.0.0.1:{self.settings['HTTPS_PORT']}"

    @property
    def ops(self) -> str:
        return f"http://127.0.0.1:{self.settings['OPS_PORT']}"


@contextmanager
def native_stack(**settings: str) -> Iterator[NativeStack]:
    """Up, ready and with the demo data; down and gone at the end. Settings are those of the environment."""
    with temporary_folder() as folder:
        stack = NativeStack(folder, {**free_ports(), "STATE_DIR": str(folder / "state"), **settings})
        try:
            stack.must("up")
            yield stack
        finally:
            stack.must("clean")


@asynccontextmanager
async def signed_in(stack: NativeStack, timeout: float = 40) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the demo user's token; waits for a stack that is still recovering from the test before."""
    async with httpx.AsyncClient(base_url=f"{stack.http}/api/v1", timeout=timeout) as client:
        async with asyncio.timeout(RECOVERY_SECONDS):
            while (answer := await client.post("/auth/login", json=LOGIN)).status_code != httpx.codes.OK:  # noqa: ASYNC110 - no one tells
                await asyncio.sleep(POLL_SECONDS)
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


def free_ports() -> dict[str, str]:
    first = free_block()
    return {name: str(first + offset) for name, offset in PORTS.items()}


def free_block() -> int:
    while True:
        first = random.randrange(FIRST_PORT, LAST_PORT, BLOCK)
        try:
            with ExitStack() as held:
                for port in range(first, first + BLOCK):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
