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
QUERY_SECONDS = 90.0  # a promotion may take 60


class PostgresError(RuntimeError):
    """A program of Postgres is missing or failed; says what it wrote."""


@dataclass(frozen=True, slots=True)
class Server:
    """`name` stays, whatever its role becomes. Its replication slot is called so, and it as a standby."""

    name: str
    data: Path
    port: int

    @property
    def label(self) -> str:
        """Its name outside of Postgres."""
        return self.name.replace("_", "-")

    @property
    def replica_name(self) -> str:
        """Where it is one that reads go to: `primary` would be taken for the role."""
        return "replica-0" if self.name == "primary" else self.label

    @property
    def dsn(self) -> str:
        return f"postgresql://headroom:{PASSWORD}@{HOST}:{self.port}/headroom"


@dataclass(frozen=True, slots=True)
class Cluster:
    primary: Server
    replicas: tuple[Server, ...]

    @property
    def servers(self) -> tuple[Server, ...]:
        """In an order that doesn't change with their roles."""
        return tuple(sorted((self.primary, *self.replicas), key=lambda server: server.data))

    def led_by(self, server: Server) -> "Cluster":
        return Cluster(server, tuple(other for other in self.servers if other != server))


def cluster(folder: Path, ports: list[int]) -> Cluster:
    """The first port is the primary's, each of the others a replica's, until a promotion changes that."""
    first, *others = (
        Server(
            f"replica_{number}" if number else "primary",
            folder / f"postgres-{number}",
            port,
        )
        for number, port in enumerate(ports)
    )
    return _with_roles(Cluster(first, tuple(others)))


def _with_roles(cluster: Cluster) -> Cluster:
    promoted = promotion_record(cluster)
    name = promoted.read_text() if promoted.exists() else cluster.primary.name
    return cluster.led_by(next(server for server in cluster.servers if server.name == name))


def promotion_record(cluster: Cluster) -> Path:
    """Holds the name of the server that was promoted last."""
    return cluster.primary.data.with_name("promoted")


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
                copy(replica, cluster.primary)


def command(server: Server, cluster: Cluster, settings: Mapping[str, str] | None = None) -> list[str]:
    """What runs the server in the foreground, in either role. SIGINT is its fast shutdown.

    A replica looks for the primary among all servers, so that it follows a promotion by itself.
    """
    hosts = ",".join(HOST for _ in cluster.servers)
    ports = ",".join(str(each.port) for each in cluster.servers)
    options = _options(server) | {
        "primary_slot_name": server.name,
        "primary_conninfo": f"host={hosts} port={ports} target_session_attrs=primary"
        f" user=replicator application_name={server.name} connect_timeout=2",
    }
    options |= settings or {}
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


def query(server: Server, statement: str) -> str:
    """What psql prints, as superuser. Raises `PostgresError`, also when the server does not answer in time."""
    connection = {"PGHOST": HOST, "PGPORT": str(server.port), "PGUSER": "postgres", "PGDATABASE": "postgres"}
    psql = [program("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", statement]
    return run(psql, connection, seconds=QUERY_SECONDS).strip()


def _options(server: Server) -> dict[str, str]:
    return {
        "port": str(server.port),
        "listen_addresses": HOST,
        "unix_socket_directories": "",
    }


def copy(replica: Server, primary: Server) -> None:
    """Makes it from a running primary that has a slot for it."""
    _build(replica, lambda server: _create_replica(server, primary))


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
    run(["bash", "-c", 'exec "$@" --pwfile=<(echo "$PGPASSWORD")', "bash", *initdb])
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


def separate_owner(server: Server) -> None:
    """The service's role doesn't own the tables it works on; for a running primary. Harmless where it was done."""
    connection = {"PGHOST": HOST, "PGPORT": str(server.port), "PGUSER": "postgres"}
    _run_script("owner.sh", {"OWNER_PASSWORD": PASSWORD} | connection)


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
    run(
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
        run([*control, "--mode=fast", "stop"])


def _run_script(name: str, environment: Mapping[str, str]) -> None:
    """Handed over as text: whom the servers run as may be unable to read this folder."""
    run(["bash", "-c", (CONFIGURATION / name).read_text(), name], environment)


def run(command: list[str], environment: Mapping[str, str] | None = None, seconds: float | None = None) -> str:
    """What the command wrote; it runs as whom the servers run as."""
    path = f"{Path(program('psql')).parent}:{os.environ['PATH']}"
    variables = os.environ | ENVIRONMENT | {"PATH": path} | dict(environment or {})
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            env=variables,
            cwd="/",
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds,
            **service_identity(),
        )
    except subprocess.TimeoutExpired as error:
        raise PostgresError(f"{name} took longer than {seconds} s") from error
    if done.returncode:
        raise PostgresError(f"{name} failed: {done.stderr or done.stdout}")
    return done.stdout
