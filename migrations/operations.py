"""What a revision does to tables that are in use: in steps that each hold a lock for a moment only.

Each function commits the revision's transaction so far and works in steps of its own. A revision that uses one uses
nothing else, so that it can be run again from its start after a failure; these functions can.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from alembic import op
from sqlalchemy import CursorResult, text

from migrations.locking import patiently

BATCH_ROWS = 2_000
BATCH_PAUSE_SECONDS = 0.05
# An index build waits for the transactions that are older than it. Nobody waits for the build meanwhile.
BUILD_LOCK_TIMEOUT = "10min"

INVALID = text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")


def create_index_concurrently(name: str, table: str, columns: Sequence[Any], **options: Any) -> None:
    """Build an index while rows are read and written; `options` are those of `op.create_index`.

    A build that fails leaves an INVALID index, which costs every write and serves no read: it is removed first.
    """
    with _steps(), _unhurried():
        if not op.get_context().as_sql and op.get_bind().scalar(INVALID, {"name": name}):
            op.drop_index(name, table, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, if_not_exists=True, **options)


def drop_index_concurrently(name: str, table: str) -> None:
    with _steps(), _unhurried():
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)


def set_not_null(table: str, column: str) -> None:
    """Forbid NULL without reading the table under a lock: a CHECK that is validated first is proof enough."""
    check = f"ck_{table}_{column}_not_null"
    with _steps():
        _step(
            "-- squawk-ignore ban-drop-constraint\n"  # of an attempt that failed
            f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check},"
            f" ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID"
        )
        with _unhurried():
            _step(f"ALTER TABLE {table} VALIDATE CONSTRAINT {check}")
        # Not in one statement: that drops the constraint first, and then reads the table.
        _step(f"-- squawk-ignore prefer-robust-stmts\nALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL")
        _step(f"-- squawk-ignore ban-drop-constraint\nALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check}")


def backfill(
    table: str,
    key: Sequence[str],
    assignment: str,
    where: str,
    *,
    batch_rows: int = BATCH_ROWS,
    pause_seconds: float = BATCH_PAUSE_SECONDS,
) -> None:
    """`UPDATE table SET assignment WHERE where`, in batches along the primary key, each committed on its own.

    The rows of a batch are locked for milliseconds; the pauses leave the disk and the replicas to the service.
    `where` is false for rows that are done, so that it can be run again. Offline it is printed as one statement.
    """
    with _steps():
        if op.get_context().as_sql:
            op.execute(f"UPDATE {table} SET {assignment} WHERE {where}")
            return
        last = _batch(table, key, assignment, where, batch_rows, after=None)
        while last is not None:
            time.sleep(pause_seconds)
            last = _batch(table, key, assignment, where, batch_rows, after=last)


def _batch(
    table: str, key: Sequence[str], assignment: str, where: str, rows: int, after: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Update the next rows after a key; the key of the last one of them, None behind the end of the table."""
    columns = ", ".join(key)
    start = "" if after is None else f"WHERE ({columns}) > ({', '.join(f':{column}' for column in key)})"
    result = _execute(
        f"WITH batch AS (SELECT {columns} FROM {table} {start} ORDER BY {columns} LIMIT {rows}),"
        f" changed AS (UPDATE {table} SET {assignment} FROM batch"
        f" WHERE ({', '.join(f'{table}.{column}' for column in key)}) ="
        f" ({', '.join(f'batch.{column}' for column in key)}) AND ({where}))"
        f" SELECT {columns} FROM batch ORDER BY {', '.join(f'{column} DESC' for column in key)} LIMIT 1",
        after,
    )
    row = result.mappings().one_or_none()
    return None if row is None else dict(row)


@contextmanager
def _steps() -> Iterator[None]:
    """Each statement is a transaction of its own."""
    with op.get_context().autocommit_block():
        yield


@contextmanager
def _unhurried() -> Iterator[None]:
    """For what takes as long as the table is large, and holds no lock that reads or writes wait for."""
    _set({"statement_timeout": "0", "lock_timeout": BUILD_LOCK_TIMEOUT})
    try:
        yield
    finally:
        _set(op.get_context().opts["session_settings"])


def _set(settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        op.execute(f"SET {name} = '{value}'")


def _step(statement: str) -> None:
    if op.get_context().as_sql:
        op.execute(statement)
    else:
        _execute(statement)


def _execute(statement: str, parameters: dict[str, Any] | None = None) -> CursorResult[Any]:
    connection, attempts = op.get_bind(), op.get_context().opts["lock_attempts"]
    return patiently(connection, lambda: connection.execute(text(statement), parameters), attempts)
