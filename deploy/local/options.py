"""What the environment says about the native stack: ports and counts. `make up` remembers it for the other verbs."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self

from app.settings import Settings

ROOT = Path(__file__).parents[2]
REMEMBERED = "stack.json"
SETTINGS = "settings.json"
POOLERS = ("", "pgbouncer")
# Set for each process by the stack itself.
OWN_SETTINGS = {
    *("worker_port", "worker_host", "instance_name", "api_instances", "web_concurrency", "metrics_peers"),
    *("database_url", "database_replica_urls", "redis_url"),
}


class StackError(RuntimeError):
    """Something that the person at the terminal can do something about; the message says what."""


@dataclass(frozen=True, slots=True)
class Options:
    """Each is an environment variable of that name, in capitals."""

    http_port: int = 8080
    https_port: int = 8443
    ops_port: int = 8081
    api_base_port: int = 8100  # instance n listens on this + n
    postgres_base_port: int = 5440  # the primary; replica n listens on this + n
    redis_port: int = 6390
    worker_port: int = 8090  # the worker's metrics
    pgbouncer_port: int = 6450  # where there is one
    api_instances: int = 2
    postgres_replicas: int = 2
    web_concurrency: int = min(2, os.cpu_count() or 1)  # workers per instance
    pooler: str = ""  # pgbouncer: the instances reach Postgres through one
    observe: str = ""  # anything: Prometheus, Alertmanager and exporters as well
    observe_base_port: int = 8190  # Prometheus, then Alertmanager and the exporters on the next ones
    observe_time_scale: float = 1.0  # of the alerts' windows and times, so that they can be tried out in seconds

    def changed_by(self, environment: Mapping[str, str]) -> Self:
        names = [field.name for field in fields(self)]
        given = {name: environment[name.upper()] for name in names if environment.get(name.upper())}
        try:
            changed = replace(self, **{name: type(getattr(self, name))(value) for name, value in given.items()})
        except ValueError as error:
            raise StackError(f"not a number, among {', '.join(map(str.upper, given))}: {error}") from error
        if changed.pooler not in POOLERS:
            raise StackError(f"POOLER is pgbouncer or nothing, not {changed.pooler}")
        return changed

    def postgres_ports(self) -> list[int]:
        return [self.postgres_base_port + number for number in range(self.postgres_replicas + 1)]

    def api_ports(self) -> list[int]:
        return [self.api_base_port + number for number in range(1, self.api_instances + 1)]

    def observe_ports(self) -> list[int]:
        """Prometheus, Alertmanager, three exporters, and one for each Postgres; none where nobody observes."""
        count = 5 + self.postgres_replicas + 1 if self.observe else 0
        return [self.observe_base_port + number for number in range(count)]

    def ports(self) -> Iterator[tuple[str, int]]:
        """Every port that the stack listens on, with the variable that moves it."""
        yield "HTTP_PORT", self.http_port
        yield "HTTPS_PORT", self.https_port
        yield "OPS_PORT", self.ops_port
        yield "REDIS_PORT", self.redis_port
        yield "WORKER_PORT", self.worker_port
        if self.pooler:
            yield "PGBOUNCER_PORT", self.pgbouncer_port
        yield from (("OBSERVE_BASE_PORT", port) for port in self.observe_ports())
        yield from (("API_BASE_PORT", port) for port in self.api_ports())
        yield from (("POSTGRES_BASE_PORT", port) for port in self.postgres_ports())


def remember(options: Options, folder: Path) -> None:
    (folder / REMEMBERED).write_text(json.dumps(asdict(options), indent=2) + "\n")


def remembered(folder: Path) -> Options | None:
    path = folder / REMEMBERED
    if not path.exists():
        return None
    known = {field.name for field in fields(Options)}  # another version may have started it
    return Options(**{name: value for name, value in json.loads(path.read_text()).items() if name in known})


def app_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Settings of the service that the caller's environment has: they reach every instance."""
    names = [name.upper() for name in Settings.model_fields if name not in OWN_SETTINGS]
    return {name: environment[name] for name in names if name in environment}


def remember_settings(settings: Mapping[str, str], folder: Path) -> None:
    """They may hold secrets."""
    path = folder / SETTINGS
    path.touch(mode=0o600)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def remembered_settings(folder: Path) -> dict[str, str]:
    """What the instances that run were started with."""
    path = folder / SETTINGS
    settings: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return settings
