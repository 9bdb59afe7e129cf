"""What the capacity model takes from measurements (JSON) and from the table of prices (TOML)."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.processes import BenchError

PRICES = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True, slots=True)
class Measured:
    """Of a mix of requests. `*_us` are CPU microseconds per request; `replicas` is of all replicas together."""

    machine: dict[str, Any]
    mix: dict[str, int]  # parts of the whole
    rate_by_connections: dict[int, float]  # of one worker
    p95_ms_by_connections: dict[int, float]
    worker_us_by_workers: dict[int, float]  # all of them under load
    primary_us: float
    replicas_us: float
    redis_us: float
    read_ms: float  # of a list that no cache has, one at a time: a connection is held for no longer
    write_ms: float
    answer_bytes: int
    compressed_bytes: int
    worker_bytes: int  # of memory, its share of what is shared

    @classmethod
    def read(cls, path: Path) -> Self:
        try:
            found = json.loads(path.read_text())
            for name in ("rate_by_connections", "p95_ms_by_connections", "worker_us_by_workers"):
                found[name] = {int(n): float(value) for n, value in found[name].items()}
            return cls(**found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BenchError(f"{path} holds no measurements: {error}") from error

    @property
    def rate_by_workers(self) -> dict[int, float]:
        """What so many workers serve when each has a core: they have fewer where this is measured."""
        return {n: n * 1e6 / us for n, us in self.worker_us_by_workers.items()}

    def share(self, *kinds: str) -> float:
        return sum(self.mix[kind] for kind in kinds) / sum(self.mix.values())


@dataclass(frozen=True, slots=True)
class Assumed:
    """The tables of prices.toml."""

    load: dict[str, float]
    target: dict[str, float]
    redundancy: list[dict[str, int]]
    instance: dict[str, float]
    postgres: list[dict[str, float]]
    redis: list[dict[str, float]]
    other: dict[str, float]
    estimate: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path = PRICES) -> Self:
        try:
            assumed = cls(**tomllib.loads(path.read_text()))
            assumed._refuse_nonsense()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{path}: {error}") from error
        return assumed

    def at_least(self, users: int) -> dict[str, int]:
        return [least for least in self.redundancy if least["users"] <= users][-1]

    def _refuse_nonsense(self) -> None:
        if not 0 < self.target["utilisation"] < 1:
            raise ValueError("target.utilisation is a share below 1")
        if not (self.postgres and self.redis and self.redundancy and self.redundancy[0]["users"] == 0):
            raise ValueError("there is a size of Postgres and of Redis at least, and redundancy from 0 users on")
        if min(self.load.values()) <= 0 or self.instance["workers"] < 1:
            raise ValueError("load and workers are greater than 0")
