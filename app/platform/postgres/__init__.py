"""Pools, replica choice, consistency tokens, sessions, failover."""

from app.platform.postgres.database import Database
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.sessions import Commit, ReadSession, WriteSession

__all__ = ["Commit", "Database", "DatabaseOptions", "ReadSession", "WriteSession"]
