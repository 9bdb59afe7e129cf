"""Which method of which repository sends a statement: what the database does is counted by that name."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import cache, wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from prometheus_client import Counter

STATEMENTS = Counter("postgres_operation_statements_total", "Statements by repository method", ("operation",))
SECONDS = Counter("postgres_operation_seconds_total", "Time in statements by repository method", ("operation",))
ROWS = Counter("postgres_operation_rows_total", "Rows read or changed by repository method", ("operation",))

OTHER = "other"  # what no repository sends: the monitor, migrations, idempotency keys
operation: ContextVar[str] = ContextVar("operation", default=OTHER)

Repository = TypeVar("Repository")


def repository(cls: type[Repository]) -> type[Repository]:
    """A class decorator. Of methods that call one another, the outermost one names the operation."""
    for name, method in list(vars(cls).items()):
        if iscoroutinefunction(method) and not name.startswith("_"):
            setattr(cls, name, _named(f"{cls.__name__.removesuffix('Repository').lower()}.{name}", method))
    return cls


def _named(name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(method)
    async def with_name(*args: Any, **kwargs: Any) -> Any:
        if operation.get() is not OTHER:
            return await method(*args, **kwargs)
        token = operation.set(name)
        try:
            return await method(*args, **kwargs)
        finally:
            operation.reset(token)

    return with_name


def count(seconds: float, rows: int) -> None:
    """`rows` is negative where the driver doesn't tell."""
    statements, spent, read = _counters(operation.get())
    statements.inc()
    spent.inc(seconds)
    if rows > 0:
        read.inc(rows)


@cache
def _counters(name: str) -> tuple[Counter, Counter, Counter]:
    """As few as the repositories have methods."""
    return STATEMENTS.labels(name), SECONDS.labels(name), ROWS.labels(name)
