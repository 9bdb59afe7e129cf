"""Redis in more than one piece, on loopback: a cluster of three masters, and a master with a replica and Sentinel."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.redis import HOST, is_ready
from tests.support.native import free_block
from tests.support.redis_server import RedisServer, redis_server
from tests.support.stack import Service, wait_until

SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000
DOWN_AFTER_MS = 500
SERVICE = "headroom"


def cli(port: int, *command: str) -> str:
    """The answer as text."""
    done = subprocess.run(
        ["redis-cli", "-h", HOST, "-p", str(port), *command], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()


@dataclass
class Cluster:
    """The masters, then a replica of the first."""

    nodes: list[RedisServer]

    @property
    def url(self) -> str:
        return f"redis+cluster://{HOST}:{self.nodes[0].port},{HOST}:{self.nodes[1].port}"

    def name(self, node: RedisServer) -> str:
        return cli(node.port, "CLUSTER", "MYID")

    def move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """A slot that has no keys."""
        for node in self.nodes[:3]:
            cli(node.port, "CLUSTER", "SETSLOT", str(slot), "NODE", self.name(target))


@contextmanager
def redis_cluster(folder: Path) -> Iterator[Cluster]:
    first = free_block()
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS))
    # A cluster bus of its own for each, since the usual one, 10,000 further on, may be taken.
    with ExitStack() as undo:
        nodes = [
            undo.enter_context(
                redis_server(
                    folder,
                    *options,
                    *("--cluster-port", str(first + 10 + number), "--cluster-config-file", f"nodes-{number}.conf"),
                    *("--cluster-require-full-coverage", "no"),
                    port=first + number,
                )
            )
            for number in range(4)
        ]
        join(nodes, first + 10)
        yield Cluster(nodes)


def join(nodes: list[RedisServer], first_bus: int) -> None:
    masters, replica = nodes[:3], nodes[3]
    for number, node in enumerate(masters):
        begin, end = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
        cli(node.port, "CLUSTER", "ADDSLOTSRANGE", str(begin), str(end))
        cli(node.port, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
    for number, node in enumerate(nodes[1:], start=1):
        cli(nodes[0].port, "CLUSTER", "MEET", HOST, str(node.port), str(first_bus + number))
    wait_until(lambda: all(knows_all(node) for node in nodes), "the cluster")
    cli(replica.port, "CLUSTER", "REPLICATE", cli(masters[0].port, "CLUSTER", "MYID"))
    wait_until(lambda: "master_link_status:up" in cli(replica.port, "INFO", "replication"), "the replica")
    wait_until(lambda: "slave" in cli(masters[1].port, "CLUSTER", "NODES"), "the replica to be known")


def knows_all(node: RedisServer) -> bool:
    info = cli(node.port, "CLUSTER", "INFO")
    return "cluster_state:ok" in info and "cluster_known_nodes:4" in info and "cluster_size:3" in info


@dataclass
class Watched:
    """A master and its replica, watched by three sentinels."""

    master: RedisServer
    replica: RedisServer
    sentinels: list[Service]
    ports: list[int]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in self.ports)}/{SERVICE}/0"

    def master_port(self) -> int:
        """As the first sentinel has it."""
        return int(cli(self.ports[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE).split()[1])


@contextmanager
def redis_sentinel(folder: Path) -> Iterator[Watched]:
    first = free_block()
    with ExitStack() as undo:
        master = undo.enter_context(redis_server(folder, port=first))
        following = ("--replicaof", f"{HOST} {first}", "--repl-diskless-sync-delay", "0")
        replica = undo.enter_context(redis_server(folder, *following, port=first + 1))
        ports = [first + 2 + number for number in range(3)]
        sentinels = [sentinel(folder, port, first) for port in ports]
        for each in sentinels:
            undo.callback(each.stop)
            each.start()
        wait_until(lambda: "master_link_status:up" in cli(replica.port, "INFO", "replication"), "the replica")
        wait_until(lambda: all(map(sees_all, ports)), "the sentinels")
        yield Watched(master, replica, sentinels, ports)


def sentinel(folder: Path, port: int, master: int) -> Service:
    configuration = folder / f"sentinel-{port}.conf"
    configuration.write_text(
        f"port {port}\nbind {HOST}\ndir {folder}\n"
        f"sentinel monitor {SERVICE} {HOST} {master} 2\n"
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {SERVICE} 3000\n"
    )
    command = ["redis-server", str(configuration), "--sentinel"]
    log = folder / f"sentinel-{port}.log"
    return Service(f"sentinel {port}", command, lambda: is_ready(port), log, as_service=False)


def sees_all(port: int) -> bool:
    state = cli(port, "SENTINEL", "MASTER", SERVICE).splitlines()
    fields = dict(zip(state[::2], state[1::2], strict=False))
    return fields.get("num-slaves") == "1" and fields.get("num-other-sentinels") == "2" and fields["flags"] == "master"
