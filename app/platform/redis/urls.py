"""Which Redis there is, by its URL.

redis://[user:password@]host:port/0                                     one server (rediss:// with TLS)
redis+sentinel://[user:password@]host:port,host:port/service/0          the master that Sentinel names
redis+cluster://[user:password@]host:port,host:port                     a Redis Cluster, by some of its nodes
"""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from app.platform.redis.link import Connect
from app.platform.redis.sentinel import Sentinels

DEFAULT_PORTS = {"sentinel": 26_379, "cluster": 6_379}
MAX_HOSTS = 32


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """`hosts` are `host:port`. Raises ValueError for what is no such URL."""

    scheme: str
    kind: str  # "", "sentinel" or "cluster"
    credentials: str  # with the @
    hosts: tuple[str, ...]
    path: tuple[str, ...]
    query: str  # with the ?

    @classmethod
    def parse(cls, url: str) -> Self:
        full_scheme, _, rest = url.partition("://")
        scheme, _, kind = full_scheme.partition("+")
        if scheme not in ("redis", "rediss", "unix") or kind not in ("", *DEFAULT_PORTS):
            raise ValueError(f"not a URL of Redis: it begins with {full_scheme!r}")
        rest, mark, query = rest.partition("?")
        authority, _, path = rest.partition("/")
        credentials, at, listed = authority.rpartition("@")
        hosts = tuple(_with_port(host, DEFAULT_PORTS.get(kind, 6_379)) for host in listed.split(",") if host)
        if kind and not 1 <= len(hosts) <= MAX_HOSTS:
            raise ValueError(f"{len(hosts)} hosts; 1 to {MAX_HOSTS} can be named")
        return cls(scheme, kind, credentials + at, hosts, tuple(filter(None, path.split("/"))), mark + query)

    def of(self, host: str, *path: str) -> str:
        """The URL of one server, with the same credentials."""
        return f"{self.scheme}://{self.credentials}{host}/{'/'.join(path)}{self.query}"


def _with_port(host: str, port: int) -> str:
    return host if ":" in host.rpartition("]")[2] else f"{host}:{port}"


def connect_by(url: str, timeout_seconds: float) -> Connect:
    """To the one server that the URL names, or to the master that its sentinels name."""
    parsed = RedisUrl.parse(url)
    if parsed.kind != "sentinel":
        return connector(url, timeout_seconds)
    service, *database = parsed.path or ("mymaster",)
    sentinels = Sentinels(
        service,
        [connector(f"{parsed.scheme}://{host}", timeout_seconds) for host in parsed.hosts],
        lambda address: connector(parsed.of(address, *database), timeout_seconds),
        timeout_seconds=timeout_seconds,
    )
    return sentinels.connect_to_master


def connector(url: str, timeout_seconds: float) -> Connect:
    """Opens connections to one server."""
    factory = ConnectionPool.from_url(
        url,
        socket_connect_timeout=timeout_seconds,
        socket_timeout=None,  # each command has its own time
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )

    async def connect() -> Connection:
        connection: Connection = factory.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    return connect
