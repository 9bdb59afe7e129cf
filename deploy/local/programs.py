"""The programs of the stack: how each is run, and how to tell that it is ready."""

import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local import nginx, observe, pgbouncer, postgres, redis
from deploy.local.options import ROOT, Options
from deploy.local.users import service_account

HOST = "127.0.0.1"
GUNICORN = [sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn.conf.py"]
PROBE_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    role: str
    port: int
    command: list[str]
    is_ready: Callable[[], bool]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: int = 10
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """In the order in which they start; they stop in the opposite one."""

    cluster: postgres.Cluster
    data: list[Program]
    api: list[Program]
    workers: list[Program]
    nginx: Program
    observers: list[Program]

    @property
    def programs(self) -> list[Program]:
        return [*self.data, *self.api, *self.workers, self.nginx, *self.observers]


def stack(options: Options, folder: Path, settings: Mapping[str, str]) -> Stack:
    cluster = postgres.cluster(folder / "postgres", options.postgres_ports())
    environment = {**settings, **service_environment(options, cluster)}
    poolers = []
    if options.pooler:
        environment |= pgbouncer.environment(cluster, options.pgbouncer_port)
        poolers = [_pgbouncer(options, folder)]
    return Stack(
        cluster,
        [*(_postgres(server, cluster) for server in cluster.servers), *poolers, _redis(options, folder)],
        [_api(f"api-{n}", port, options, folder, environment) for n, port in enumerate(options.api_ports(), start=1)],
        [_worker(options, folder, environment)],
        _nginx(options, folder),
        [_observer(part, folder / "observe") for part in observers(options, folder, cluster)],
    )


def observers(options: Options, folder: Path, cluster: postgres.Cluster) -> list[observe.Observer]:
    return observe.observers(options, folder / "observe", cluster.servers) if options.observe else []


def service_environment(options: Options, cluster: postgres.Cluster) -> dict[str, str]:
    """Settings of the service that follow from the stack; see app/settings.py."""
    return {
        "DATABASE_URL": primary_url(cluster),
        "DATABASE_REPLICA_URLS": ",".join(map(replica_url, cluster.replicas)),
        "REDIS_URL": redis.url(options.redis_port),
        "METRICS_PEERS": ",".join(f"http://{HOST}:{port}" for port in options.api_ports()),
    }


def asyncpg_url(server: postgres.Server) -> str:
    return server.dsn.replace("postgresql://", "postgresql+asyncpg://")


def primary_url(cluster: postgres.Cluster, role: str = "headroom") -> str:
    """Names every server, so that the service finds the one that is the primary now."""
    hosts = ",".join(postgres.HOST for _ in cluster.servers)
    ports = ",".join(str(server.port) for server in cluster.servers)
    return f"postgresql+asyncpg://{role}:{postgres.PASSWORD}@/headroom?host={hosts}&port={ports}"


def replica_url(server: postgres.Server) -> str:
    return f"{asyncpg_url(server)}?name={server.replica_name}"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _postgres(server: postgres.Server, cluster: postgres.Cluster) -> Program:
    is_primary = server == cluster.primary
    return Program(
        name=f"postgres-{server.label}",
        role="postgres-primary" if is_primary else "postgres-replica",
        port=server.port,
        command=postgres.command(server, cluster),
        is_ready=lambda: postgres.is_ready(server),
        folder=server.data,
        environment=postgres.ENVIRONMENT,
        stop_signal=signal.SIGINT,
        stop_seconds=30,
        user=_service_user(),
    )


def _pgbouncer(options: Options, folder: Path) -> Program:
    home = folder / "pgbouncer"
    return Program(
        name="pgbouncer",
        role="pgbouncer",
        port=options.pgbouncer_port,
        command=pgbouncer.command(home),
        is_ready=lambda: pgbouncer.is_ready(options.pgbouncer_port),
        folder=home,
        stop_signal=signal.SIGINT,
        user=_service_user(),
    )


def _redis(options: Options, folder: Path) -> Program:
    home = folder / "redis"
    return Program(
        name="redis",
        role="redis",
        port=options.redis_port,
        command=redis.command(options.redis_port, home),
        is_ready=lambda: redis.is_ready(options.redis_port),
        folder=home,
        user=_service_user(),
    )


def _api(name: str, port: int, options: Options, folder: Path, environment: Mapping[str, str]) -> Program:
    own = {
        "INSTANCE_NAME": name,
        "BIND": f"{HOST}:{port}",
        "API_INSTANCES": str(options.api_instances),
        "WEB_CONCURRENCY": str(options.web_concurrency),
        "FORWARDED_ALLOW_IPS": HOST,
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "run" / "metrics" / name),
    }
    return Program(
        name=name,
        role="api",
        port=port,
        command=[*GUNICORN, "--pid", f"{folder}/run/{name}.pid"],
        is_ready=lambda: answers(f"http://{HOST}:{port}/livez"),
        folder=ROOT,
        environment={**environment, **own},
        stop_seconds=40,
    )


def _worker(options: Options, folder: Path, environment: Mapping[str, str]) -> Program:
    own = {"INSTANCE_NAME": "worker", "WORKER_HOST": HOST, "WORKER_PORT": str(options.worker_port)}
    own |= {"MAIL_URL": environment.get("MAIL_URL", f"file:{folder}/mail")}
    return Program(
        name="worker",
        role="worker",
        port=options.worker_port,
        command=[sys.executable, "-m", "app.worker", "--pid-file", f"{folder}/run/worker.pid"],
        is_ready=lambda: answers(f"http://{HOST}:{options.worker_port}/metrics"),
        folder=ROOT,
        environment={**environment, **own},
        stop_seconds=20,
    )


def _nginx(options: Options, folder: Path) -> Program:
    home = folder / "nginx"
    return Program(
        name="nginx",
        role="nginx",
        port=options.http_port,
        command=nginx.command(home),
        is_ready=lambda: answers(f"http://{HOST}:{options.http_port}/readyz"),
        folder=home,
        stop_signal=signal.SIGQUIT,
        stop_seconds=20,
    )


def _observer(part: observe.Observer, home: Path) -> Program:
    return Program(
        name=part.name,
        role="observer",
        port=part.port,
        command=part.command,
        is_ready=lambda: answers(f"http://{HOST}:{part.port}{part.ready_path}"),
        folder=home,
        environment=part.environment,
        user=_service_user(),
    )


def _service_user() -> str | None:
    account = service_account()
    return account.pw_name if account else None


def command_environment(options: Options, cluster: postgres.Cluster) -> dict[str, str]:
    """For a command that a person runs against the stack. It goes around a pooler: migrations keep what they set, and
    are the owner's.
    """
    owner = {"MIGRATION_DATABASE_URL": primary_url(cluster, "headroom_owner")}
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, **service_environment(options, cluster), **owner, "PATH": programs}
