"""Pools, replica choice, consistency tokens, sessions, failover."""

from app.platform.postgres.database import Database
from app.platform.postgres.operations import repository
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.prepared import Prepared, Statements, named
from app.platform.postgres.sessions import Commit, ReadSession, WriteSession, fetch

__all__ = [
    "Commit",
    "Database",
    "DatabaseOptions",
    "Prepared",
    "ReadSession",
    "Statements",
    "WriteSession",
    "fetch",
    "named",
    "repository",
]
