"""A Postgres primary and its streaming replicas: making them once, and the command that runs each."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.local.users import service_folder, service_identity

HOST = "127.0.0.1"
PASSWORD = "headroom-development"
ENVIRONMENT = {"PGPASSWORD": PASSWORD}  # of every command: where `ps` does not show it
CONFIGURATION = Path(__file__).parents[1] / "postgres"


class PostgresError(RuntimeError):
    """A program of Postgres is missing or failed; says what it wrote."""


@dataclass(frozen=True, slots=True)
class Server:
    """`name` is also that of its replication slot, and its name as a standby."""

    name: str
    data: Path
    port: int

    @property
    def dsn(self) -> str:
        return f"postgresql://headroom:{PASSWORD}@{HOST}:{self.port}/headroom"


@dataclass(frozen=True, slots=True)
class Cluster:
    primary: Server
    replicas: tuple[Server, ...]

    @property
    def servers(self) -> tuple[Server, ...]:
        return (self.primary, *self.replicas)


def cluster(folder: Path, ports: list[int]) -> Cluster:
    """The first port is the primary's; each of the others gets a replica."""
    primary, *replicas = (
        Server(
            f"replica_{number}" if number else "primary",
            folder / f"postgres-{number}",
            port,
        )
        for number, port in enumerate(ports)
    )
    return Cluster(primary, tuple(replicas))


def program(name: str) -> str:
    """Path of the newest installed one: Debian keeps the servers' programs off PATH."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"),
        key=lambda path: float(path.parts[-3]),
    )
    found = str(versions[-1]) if versions else shutil.which(name)
    if found is None:
        raise PostgresError(f"{name} is not installed (on Debian and Ubuntu: apt-get install postgresql)")
    return found


def create(cluster: Cluster) -> None:
    """Makes the servers that don't exist yet; needs their ports to be free and the cluster to be down."""
    if not _exists(cluster.primary):
        _build(
            cluster.primary,
            lambda server: _create_primary(server, len(cluster.replicas)),
        )
    if missing := [replica for replica in cluster.replicas if not _exists(replica)]:
        with _running(cluster.primary):
            for replica in missing:
                _build(replica, lambda server: _create_replica(server, cluster.primary))


def command(server: Server, cluster: Cluster, settings: Mapping[str, str] | None = None) -> list[str]:
    """What runs the server in the foreground. SIGINT is its fast shutdown."""
    options = _options(server) | dict(settings or {})
    if server != cluster.primary:
        options["primary_slot_name"] = server.name
        options["primary_conninfo"] = (
            f"host={HOST} port={cluster.primary.port} user=replicator application_name={server.name}"
        )
    return [
        program("postgres"),
        "-D",
        str(server.data),
        *(f"--{name}={value}" for name, value in options.items()),
    ]


def is_ready(server: Server) -> bool:
    """Accepts connections; a replica has reached a consistent state then. Takes a second at most."""
    probe = [
        program("pg_isready"),
        "--quiet",
        "--timeout=1",
        f"--host={HOST}",
        f"--port={server.port}",
    ]
    return subprocess.run(probe, check=False).returncode == 0


def _options(server: Server) -> dict[str, str]:
    return {
        "port": str(server.port),
        "listen_addresses": HOST,
        "unix_socket_directories": "",
    }


def _exists(server: Server) -> bool:
    return (server.data / "PG_VERSION").exists()


def _build(server: Server, create_in: Callable[[Server], None]) -> None:
    """An interrupted attempt leaves nothing behind that looks like a server."""
    service_folder(server.data.parent)
    unfinished = replace(server, data=server.data.with_suffix(".unfinished"))
    shutil.rmtree(unfinished.data, ignore_errors=True)
    create_in(unfinished)
    unfinished.data.rename(server.data)


def _create_primary(server: Server, replicas: int) -> None:
    initdb = [
        program("initdb"),
        "--pgdata",
        str(server.data),
        "--username=postgres",
        "--auth=scram-sha-256",
    ]
    initdb += ["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync"]
    _run(["bash", "-c", 'exec "$@" --pwfile=<(echo "$PGPASSWORD")', "bash", *initdb])
    for name in ("postgresql.conf", "pg_hba.conf"):
        (server.data / name).write_text((CONFIGURATION / name).read_text())
    with _running(server):
        roles = {
            "APP_PASSWORD": PASSWORD,
            "REPLICATION_PASSWORD": PASSWORD,
            "REPLICAS": str(replicas),
        }
        connection = {"PGHOST": HOST, "PGPORT": str(server.port), "PGUSER": "postgres"}
        _run_script("primary.sh", roles | connection)


def _create_replica(server: Server, primary: Server) -> None:
    source = {
        "PRIMARY_HOST": HOST,
        "PRIMARY_PORT": str(primary.port),
        "REPLICA_NAME": server.name,
    }
    _run_script("replica.sh", source | {"PGDATA": str(server.data)})


@contextmanager
def _running(server: Server) -> Iterator[None]:
    """Up for the time of its set-up, when no standby is there that a commit could wait for."""
    options = _options(server) | {
        "synchronous_standby_names": "",
        "logging_collector": "off",
    }
    control = [program("pg_ctl"), "--pgdata", str(server.data), "--wait", "--silent"]
    log = ["--log", str(server.data.parent / "setup.log")]
    _run(
        [
            *control,
            *log,
            "--options",
            " ".join(f"--{name}='{value}'" for name, value in options.items()),
            "start",
        ]
    )
    try:
        yield
    finally:
        _run([*control, "--mode=fast", "stop"])


def _run_script(name: str, environment: Mapping[str, str]) -> None:
    """Handed over as text: whom the servers run as may be unable to read this folder."""
    _run(["bash", "-c", (CONFIGURATION / name).read_text(), name], environment)


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> None:
    path = f"{Path(program('psql')).parent}:{os.environ['PATH']}"
    variables = os.environ | ENVIRONMENT | {"PATH": path} | dict(environment or {})
    done = subprocess.run(
        command,
        env=variables,
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
        **service_identity(),
    )
    if done.returncode:
        raise PostgresError(f"{Path(command[0]).name} failed: {done.stderr or done.stdout}")
