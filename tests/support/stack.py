"""Real servers for tests: Postgres with streaming replicas and Redis, on free ports, in a folder of their own.

`python -m tests.support.stack` starts them, prints their environment and keeps them up until it is interrupted.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from deploy.local import pgbouncer, postgres, redis
from deploy.local.users import service_identity

# The application under test reaches Postgres through PgBouncer; what a test does itself goes around it.
POOLED = os.environ.get("POOLER") == "pgbouncer"
START_SECONDS = 30
STOP_SECONDS = 15
UNSAFE_BUT_FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
}


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


def wait_until(ready: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


@dataclass
class Service:
    """A server that a test can freeze, kill and start again. A child of this process, in a process group of its own."""

    name: str
    command: list[str]
    is_ready: Callable[[], bool]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGINT
    as_service: bool = True
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    def start(self, wait: bool = True) -> None:
        identity = service_identity() if self.as_service else {}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                cwd="/" if identity else None,
                stdout=log,
                stderr=log,
                process_group=0,
                **identity,
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.is_ready() or self._has_died(), self.name)

    def stop(self) -> None:
        """Orderly where it can be, and gone in any case."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.thaw()
            self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """SIGKILL to it and to its workers: no farewell, as when a machine is lost."""
        family = process_tree(self.pid)
        send(signal.SIGKILL, family)
        wait_until(lambda: all(map(is_gone, family[1:])), f"the end of {self.name}")
        assert self.process is not None
        self.process.wait(STOP_SECONDS)

    def freeze(self) -> None:
        """Connections stay open and nothing answers, as when a machine hangs."""
        send(signal.SIGSTOP, process_tree(self.pid))

    def thaw(self) -> None:
        send(signal.SIGCONT, process_tree(self.pid))

    def _has_died(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended at its start: {self.log.read_text()[-2000:]}")
        return False


def process_tree(pid: int) -> list[int]:
    """The process, then everything below it. Postgres' backends have process groups of their own."""
    found = [pid]
    for parent in found:
        children = Path(f"/proc/{parent}/task/{parent}/children")
        found += [int(child) for child in children.read_text().split()] if children.exists() else []
    return found


def send(number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def is_gone(pid: int) -> bool:
    """True for a zombie too: nobody may be there to reap the orphans of a killed server."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


@dataclass
class DataServices:
    services: dict[str, Service]
    cluster: postgres.Cluster
    redis_url: str
    application_cluster: postgres.Cluster  # the same servers as the application reaches them: through PgBouncer, or not

    @property
    def primary_dsn(self) -> str:
        return self.cluster.primary.dsn

    @property
    def replica_dsns(self) -> list[str]:
        return [replica.dsn for replica in self.cluster.replicas]

    @property
    def pids(self) -> dict[str, int]:
        return {name: service.pid for name, service in self.services.items()}

    @property
    def environment(self) -> dict[str, str]:
        """What `app.settings.Settings` reads."""
        return {
            "DATABASE_URL": as_asyncpg(self.application_cluster.primary.dsn),
            "DATABASE_REPLICA_URLS": ",".join(as_asyncpg(each.dsn) for each in self.application_cluster.replicas),
            "DATABASE_STATEMENT_CACHE_SIZE": "0" if POOLED else "256",
            "REDIS_URL": self.redis_url,
        }


def as_asyncpg(dsn: str) -> str:
    return dsn.replace("postgresql://", "postgresql+asyncpg://")


def superuser(dsn: str) -> str:
    """The same database, as the role that may do anything; roles share one password in development."""
    return dsn.replace("//headroom:", "//postgres:")


@contextmanager
def data_services(
    folder: Path | None = None,
    *,
    replicas: int = 2,
    settings: Mapping[str, str] = UNSAFE_BUT_FAST,
) -> Iterator[DataServices]:
    """A cluster whose commits wait for any one replica, and Redis, all ready; stopped and removed at the end.

    Services are named `primary`, `replica-1`, ..., `redis`. A `folder` that is given has to be open to the
    unprivileged user that Postgres runs as (pytest's `tmp_path` is not), and is kept.
    """
    with ExitStack() as undo:
        home = folder or undo.enter_context(temporary_folder())
        redis_port, *ports = free_ports(1 + 2 * (1 + replicas))
        postgres_ports, pooler_ports = ports[: 1 + replicas], ports[1 + replicas :]
        cluster = postgres.cluster(home / "postgres", postgres_ports)
        postgres.create(cluster)
        started = [_postgres(server, cluster, settings, home) for server in cluster.servers]
        started.append(_redis(redis_port, home / "redis"))
        reached = cluster
        if POOLED:
            reached, poolers = _pooled(cluster, pooler_ports, home)
            started += poolers
        for service in started:
            undo.callback(service.stop)
            service.start(wait=False)
        for service in started:
            service.wait_until_ready()
        yield DataServices(
            {service.name: service for service in started},
            cluster,
            redis.url(redis_port),
            reached,
        )


@contextmanager
def no_standby(services: DataServices) -> Iterator[None]:
    """Both replicas are frozen: no COMMIT that waits for one is acknowledged."""
    replicas = [services.services["replica-1"], services.services["replica-2"]]
    for replica in replicas:
        replica.freeze()
    try:
        yield
    finally:
        for replica in replicas:
            replica.thaw()


def _postgres(
    server: postgres.Server,
    cluster: postgres.Cluster,
    settings: Mapping[str, str],
    home: Path,
) -> Service:
    return Service(
        server.label,
        postgres.command(server, cluster, settings),
        lambda: postgres.is_ready(server),
        home / f"{server.name}.log",
        postgres.ENVIRONMENT,
    )


def _pooled(cluster: postgres.Cluster, ports: list[int], home: Path) -> tuple[postgres.Cluster, list[Service]]:
    """One PgBouncer for each server, since tests make databases of their own: `*` leads to all that are there."""
    poolers = [
        _pgbouncer(server, port, home / f"pgbouncer-{server.name}")
        for server, port in zip(cluster.servers, ports, strict=True)
    ]
    primary, *replicas = (replace(server, port=port) for server, port in zip(cluster.servers, ports, strict=True))
    return postgres.Cluster(primary, tuple(replicas)), poolers


def _pgbouncer(server: postgres.Server, port: int, folder: Path) -> Service:
    pgbouncer.prepare(folder, port, {"*": server})
    return Service(
        f"pgbouncer-{server.label}",
        pgbouncer.command(folder),
        lambda: pgbouncer.is_ready(port),
        folder / "pgbouncer.log",
    )


def _redis(port: int, folder: Path) -> Service:
    redis.prepare(folder)
    return Service(
        "redis",
        redis.command(port, folder),
        lambda: redis.is_ready(port),
        folder / "redis.log",
    )


@contextmanager
def temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="headroom-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=2)
    options = parser.parse_args()
    end = {signal.SIGINT, signal.SIGTERM}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with data_services(replicas=options.replicas) as services:
        for name, value in services.environment.items():
            print(f"export {name}='{value}'")
        print("# process ids:", services.pids, flush=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, end)  # a second one does not disturb the stopping
        signal.sigwait(end)


if __name__ == "__main__":
    main()
