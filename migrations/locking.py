"""Locks of a migration: one migrator at a time, and no waiting in front of the service's own statements.

Postgres grants locks in the order in which they were asked for: an ALTER TABLE that waits for one long transaction
makes every later statement on that table wait with it. So a migration waits for LOCK_TIMEOUT_MS at most, lets the
others through, and tries again.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

# Half of the 500 ms that a request may take at most while a revision runs.
LOCK_TIMEOUT_MS = 250
# With the pauses below it comes to about a minute and a half.
LOCK_ATTEMPTS = 30
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0

# Any number that no other program on this database uses for an advisory lock.
MIGRATOR = 4_815_162_342
MIGRATOR_SECONDS = 120.0
MIGRATOR_POLL_SECONDS = 0.2
REPLICA_SECONDS = 30.0
REPLICA_POLL_SECONDS = 0.05

LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED = "55P03", "40P01"
LONG_TRANSACTIONS = text(
    "SELECT format('pid %s (%s, %s) for %s s: %s', pid, application_name, state,"
    " round(extract(epoch FROM now() - xact_start)), left(query, 80))"
    " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND xact_start < now() - interval '1 second' ORDER BY xact_start LIMIT 3"
)
BEHIND = text(
    "SELECT application_name FROM pg_stat_replication"
    " WHERE state = 'streaming' AND replay_lsn < CAST(CAST(:position AS text) AS pg_lsn)"
)

log = logging.getLogger("alembic.locking")
Result = TypeVar("Result")


def become_the_migrator(connection: Connection) -> None:
    """Hold the migrator's lock for as long as this session lives, so a killed migrator leaves none behind.

    Asks again and again: a session that waits inside `pg_advisory_lock` has a snapshot, which the other migrator's
    CREATE INDEX CONCURRENTLY would wait for, and the two would be deadlocked. Raises `CommandError` after
    MIGRATOR_SECONDS.
    """
    if not _within(MIGRATOR_SECONDS, MIGRATOR_POLL_SECONDS, lambda: _try_lock(connection)):
        raise CommandError(f"another migrator has been at work for {MIGRATOR_SECONDS:.0f} s")


def patiently(connection: Connection, work: Callable[[], Result], attempts: int) -> Result:
    """Do what takes locks; when one isn't free in time, or after a deadlock, pause and do it again.

    `work` leaves nothing behind when it fails. Raises `CommandError` naming the long transactions after so many
    attempts.
    """
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in (LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED):
                raise
            reason = str(error.orig)
        if attempt < attempts:
            log.warning("attempt %d of %d: %s; trying again", attempt, attempts, reason)
            time.sleep(pause_seconds(attempt))
    raise CommandError(f"no lock in {attempts} attempts, nothing is left half done. {_holders(connection)}")


def pause_seconds(attempt: int) -> float:
    """Exponential, and half of it random, so as not to keep step with whatever takes the lock again and again."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    return random.uniform(longest / 2, longest)


def wait_for_replicas(connection: Connection) -> None:
    """Until the replicas have replayed what was done, for REPLICA_SECONDS at most: new code reads from them next."""
    position = connection.scalar(text("SELECT pg_current_wal_flush_lsn()::text"))
    behind: list[str] = []

    def caught_up() -> bool:
        behind[:] = connection.scalars(BEHIND, {"position": position})
        connection.rollback()
        return not behind

    if not _within(REPLICA_SECONDS, REPLICA_POLL_SECONDS, caught_up):
        log.warning("%s: not there yet after %.0f s; keep new code off it", ", ".join(behind), REPLICA_SECONDS)


def _try_lock(connection: Connection) -> bool:
    taken = connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": MIGRATOR})
    connection.commit()
    return bool(taken)


def _holders(connection: Connection) -> str:
    holders = connection.scalars(LONG_TRANSACTIONS).all()
    return "Long transactions: " + "; ".join(holders) if holders else "No transaction is long now: run it again."


def _within(seconds: float, poll_seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(poll_seconds)
    return True
