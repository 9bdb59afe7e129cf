"""What is measured: the service as the native stack runs it, the baselines in the same server, and their data."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.processes import BenchError, Cores, cpu_seconds, free_ports, pinned, running
from deploy.local import postgres, programs, redis
from deploy.local.options import ROOT, Options

REPLICAS = 2
# Limits are counted as ever and never reached, and who has to wait for a place may; a run is longer than a token lives.
SETTINGS = {
    "RATE_LIMIT_SCALE": "1000000",
    "ADMISSION_WAIT_MS": "9000",
    "DATABASE_POOL_TIMEOUT_MS": "9000",
    "ACCESS_TOKEN_SECONDS": "86400",
    "ENVIRONMENT": "test",
}
REFUSED = re.compile(r'"status":[45]')
LOG_BYTES = 1_000_000  # of its end, where a refusal is looked for


@dataclass(frozen=True, slots=True)
class Server:
    """One gunicorn with one worker."""

    name: str
    url: str
    pid: int
    log: Path

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def last_refusal(self) -> str:
        """The line of its log; empty where there is none."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return next((line for line in reversed(lines) if REFUSED.search(line)), "")


class Servers:
    """Starts what is asked for; everything stops with it."""

    def __init__(self, folder: Path, cores: Cores, stopping: ExitStack) -> None:
        self.options = Options(
            postgres_base_port=free_ports(1 + REPLICAS),
            postgres_replicas=REPLICAS,
            redis_port=free_ports(),
            api_instances=1,
            web_concurrency=1,
        )
        self.cores = cores
        self._folder = folder
        self._stopping = stopping
        self.data: dict[str, int] = {}  # process ids of Postgres' servers and of Redis
        self._baselines: dict[str, Server] = {}

    def start_data(self) -> None:
        """Postgres with its replicas, and Redis; the tables are there when it returns."""
        stack = programs.stack(self.options, self._folder, SETTINGS)
        postgres.create(stack.cluster)
        redis.prepare(self._folder / "redis")
        for program in stack.data:
            self.data[program.name] = self._run(program, self.cores.others)
        postgres.separate_owner(stack.cluster.primary)
        self._call("-m", "alembic", "upgrade", "head")

    def seed(self, *arguments: str) -> None:
        self._call("-m", "app.seed", *arguments)

    def environment(self) -> dict[str, str]:
        """What leads a command to the data services."""
        stack = programs.stack(self.options, self._folder, SETTINGS)
        return programs.command_environment(self.options, stack.cluster)

    def settings(self) -> dict[str, Any]:
        """What leads `app.settings.Settings` to the data services."""
        stack = programs.stack(self.options, self._folder, SETTINGS)
        found = programs.service_environment(self.options, stack.cluster)
        return {name.lower(): value for name, value in found.items()}

    def service(self, name: str, **settings: str) -> Server:
        """The service, with other settings than the usual ones."""
        return self._serve(self._api(name, settings))

    @contextmanager
    def passing_service(self, name: str, **settings: str) -> Iterator[Server]:
        """The service for as long as it is needed, where many in turn would be too many at once."""
        program = self._api(name, settings)
        with running(program, self.cores.server, self._log(program)) as pid:
            yield self._server(program, pid)

    def baseline(self, name: str) -> Server:
        """`bench/baselines/<name>.py`, served as the service is; started when it is asked for first."""
        if name not in self._baselines:
            self._baselines[name] = self._serve(self._baseline(name))
        return self._baselines[name]

    def _baseline(self, name: str) -> programs.Program:
        program = self._api(name, {})
        return replace(
            program,
            command=[*program.command, f"bench.baselines.{name}:app"],
            is_ready=lambda: programs.answers(f"http://127.0.0.1:{program.port}/openapi.json"),
        )

    def _api(self, name: str, settings: dict[str, str]) -> programs.Program:
        options = replace(self.options, api_base_port=free_ports() - 1)
        stack = programs.stack(options, self._folder, {**SETTINGS, **settings})
        metrics = self._folder / "metrics" / name
        return replace(
            stack.api[0],
            name=name,
            command=[*programs.GUNICORN, "--pid", str(self._folder / f"{name}.pid")],
            environment={**stack.api[0].environment, "PROMETHEUS_MULTIPROC_DIR": str(metrics), "INSTANCE_NAME": name},
        )

    def _serve(self, program: programs.Program) -> Server:
        return self._server(program, self._run(program, self.cores.server))

    def _server(self, program: programs.Program, pid: int) -> Server:
        return Server(program.name, f"http://127.0.0.1:{program.port}", pid, self._log(program))

    def _run(self, program: programs.Program, cores: str) -> int:
        return self._stopping.enter_context(running(program, cores, self._log(program)))

    def _log(self, program: programs.Program) -> Path:
        return self._folder / f"{program.name}.log"

    def _call(self, *arguments: str) -> None:
        command = pinned([sys.executable, *arguments], self.cores.others)
        done = subprocess.run(command, env=self.environment(), cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode:
            raise BenchError(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


@contextmanager
def servers() -> Iterator[Servers]:
    """In a folder below /tmp, which the unprivileged user that Postgres runs as can enter."""
    folder = Path(tempfile.mkdtemp(prefix="headroom-bench-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        with ExitStack() as stopping:
            yield Servers(folder, Cores.divided(), stopping)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
