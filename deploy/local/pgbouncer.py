"""PgBouncer in front of a cluster: its configuration, the command that runs it, and the settings that lead to it."""

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from deploy.local.postgres import PASSWORD, Cluster, Server
from deploy.local.users import service_folder

HOST = "127.0.0.1"
SOURCE = Path(__file__).parents[1] / "pgbouncer"
PROBE_POOL = 5  # counted in pgbouncer.ini
MAIN = """\
[databases]
{databases}

[pgbouncer]
listen_addr = {host}
listen_port = {port}
auth_file = {home}/userlist.txt

%include {home}/pgbouncer.ini
"""


def entries(cluster: Cluster) -> dict[str, Server]:
    """Which server is behind which name: `headroom` is the primary's, `headroom_replica_1` the first replica's."""
    return {"headroom": cluster.primary} | {f"headroom_{replica.name}": replica for replica in cluster.replicas}


def environment(cluster: Cluster, port: int) -> dict[str, str]:
    """Settings of the service; see app/settings.py."""
    primary, *replicas = (
        f"postgresql+asyncpg://headroom:{PASSWORD}@{HOST}:{port}/{name}?name={server.replica_name}&probe={name}_probe"
        for name, server in entries(cluster).items()
    )
    return {
        "DATABASE_URL": primary,
        "DATABASE_REPLICA_URLS": ",".join(replicas),
        "DATABASE_STATEMENT_CACHE_SIZE": "0",
    }


def prepare(home: Path, port: int, databases: Mapping[str, Server]) -> None:
    """Writes the configuration. `*` among the names stands for every database of its server."""
    service_folder(home)
    for name in ("pgbouncer.ini", "userlist.txt"):
        shutil.copyfile(SOURCE / name, home / name)
    lines = "\n".join(_entries(name, server) for name, server in databases.items())
    (home / "main.ini").write_text(MAIN.format(databases=lines, host=HOST, port=port, home=home))


def command(home: Path) -> list[str]:
    """SIGINT lets transactions end, and refuses new ones."""
    return [shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", f"{home}/main.ini"]


def is_ready(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def _entries(name: str, server: Server) -> str:
    address = f"host={HOST} port={server.port}"
    if name == "*":
        return f"* = {address}"
    return f"{name} = {address} dbname=headroom\n{name}_probe = {address} dbname=headroom pool_size={PROBE_POOL}"
