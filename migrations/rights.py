"""What the service's role may do where migrations run as another one: rows, not tables; of the audit log, append."""

from sqlalchemy import Connection, make_url, text

ROWS = "SELECT, INSERT, UPDATE, DELETE, TRUNCATE"
NARROWER = {"audit_entries": "SELECT, INSERT", "audit_checkpoints": "SELECT, INSERT", "alembic_version": "SELECT"}
WITHOUT_RIGHTS = text("""
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
AND NOT has_table_privilege(:role, oid, 'SELECT')
""")


def service_role(database_url: str, migration_url: str) -> str | None:
    """None where one role does both: it owns the tables, and needs no rights."""
    service, owner = make_url(database_url).username, make_url(migration_url).username
    return None if service == owner else service


def grant(connection: Connection, role: str) -> None:
    """On every table that the role has no rights on yet: what is new, or came to the owner only now."""
    quoted = connection.dialect.identifier_preparer.quote(role)
    for table in connection.execute(WITHOUT_RIGHTS, {"role": role}).scalars().all():
        name = connection.dialect.identifier_preparer.quote(table)
        connection.execute(text(f"GRANT {NARROWER.get(table, ROWS)} ON {name} TO {quoted}"))
    connection.commit()
