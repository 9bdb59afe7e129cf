"""What a database does to its callers, typed, so that no layer above has to read SQLSTATEs (PostgreSQL, appendix A)."""

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

STATEMENT_TIMEOUT = "57014"  # query_canceled: statement_timeout, or an operator
LOCK_TIMEOUT = "55P03"
READ_ONLY = "25006"  # on the writer's connections: that server is no longer the primary
CONFLICTS = frozenset({"40001", "40P01"})  # serialization failure, deadlock; on a replica: conflict with recovery
# Connection exceptions, shutdowns, "starting up", too many connections, idle in transaction for too long.
UNAVAILABLE = frozenset({"57P01", "57P02", "57P03", "57P04", "53300", "25P03"})


class DatabaseError(Exception):
    """Not the caller's fault."""


class DatabaseUnavailable(DatabaseError):
    """No server that could do this can be reached, or the connection was lost before anything was committed."""


class DatabaseBusy(DatabaseError):
    """No connection, or no lock, was free within its bound; later there may be."""


class TransactionConflict(DatabaseBusy):
    """A serialization failure or a deadlock, rolled back: running the whole transaction again may succeed."""


class StatementTimeout(DatabaseError):
    """A statement ran for longer than it may, or than the request had left."""


class TransactionAborted(DatabaseError):
    """COMMIT was answered with ROLLBACK: an earlier statement had failed and the failure was swallowed."""


class CommitOutcomeUnknown(DatabaseError):
    """COMMIT was sent, and whether it lasts is not known: neither success nor failure may be told."""


def sqlstate(error: BaseException) -> str:
    """The five characters, or an empty string where the server didn't send any."""
    if isinstance(error, DBAPIError):
        return getattr(error.orig, "sqlstate", None) or ""
    return getattr(error, "sqlstate", None) or ""


def drivers_own(error: BaseException) -> BaseException | None:
    """What the driver raised, where SQLAlchemy wrapped it."""
    return error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig is not None else None


def is_unreachable(error: BaseException) -> bool:
    """The server, or the connection to it, is gone; says nothing about the statement."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = sqlstate(error)
    if state.startswith("08") or state in UNAVAILABLE:
        return True
    # The driver's own error comes through as it is when a connection is lost while SQLAlchemy sets it up.
    return isinstance(error, DatabaseUnavailable | asyncpg.InterfaceError)


def translated(error: BaseException) -> DatabaseError | None:
    """The typed error to raise in place of `error`; None where it is about the statement and stays as it is."""
    if isinstance(error, DatabaseError):
        return None
    if isinstance(error, PoolTimeout):
        return DatabaseBusy("no connection was free")
    if not isinstance(error, DBAPIError | asyncpg.PostgresError | asyncpg.InterfaceError):
        return None
    state = sqlstate(error)
    if state == STATEMENT_TIMEOUT:
        return StatementTimeout("a statement took too long")
    if state == LOCK_TIMEOUT:
        return DatabaseBusy("a lock was not free")
    if state in CONFLICTS:
        return TransactionConflict("another transaction was in the way")
    return DatabaseUnavailable("the database can't be reached") if is_unreachable(error) else None
