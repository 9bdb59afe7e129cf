"""The service's role works on rows and changes no table; of the audit log it reads and appends, and no more."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from deploy.local import postgres
from tests.support.api import connected
from tests.support.migrations import insert_rows, migrate
from tests.support.stack import DataServices, as_asyncpg, data_services

pytestmark = pytest.mark.asyncio(loop_scope="session")

APPEND = """
SELECT append_audit_entry(gen_random_uuid(), gen_random_uuid(), now(), NULL, NULL, 'a', NULL, '{}', '', '', '', '')
"""
CHANGES = [
    *("UPDATE {} SET key_id = ''", "DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}", "DROP TRIGGER append_only ON {}"),
    *(
        "ALTER TABLE {} DISABLE TRIGGER append_only",
        "ALTER TABLE {} ADD COLUMN x int",
        "ALTER TABLE {} OWNER TO headroom",
    ),
    *("GRANT DELETE ON {0} TO headroom; DELETE FROM {0}", "CREATE RULE r AS ON INSERT TO {} DO INSTEAD NOTHING"),
]
BY_ANY_NAME = [
    *("SET ROLE headroom_owner", "SET session_replication_role = replica", "DROP FUNCTION refuse_audit_change CASCADE"),
    *("DROP SCHEMA public CASCADE", "CREATE TABLE a (b int)", "ALTER TABLE equipment ADD COLUMN x int"),
]


@pytest.fixture(scope="module")
def services() -> Iterator[DataServices]:
    """A clone from before: one role has made everything. Then the owner gets what is his."""
    with data_services(replicas=0) as started:
        asyncio.run(migrate(started.primary_dsn, "upgrade", "0017"))
        asyncio.run(insert_rows(started.primary_dsn, items=5, checkouts=1))
        yield started


@pytest.fixture(scope="module")
def dsn(services: DataServices) -> str:
    """Of the service's role, once the owner's is another."""
    postgres.separate_owner(services.cluster.primary)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIGRATION_DATABASE_URL", as_asyncpg(owner(services.primary_dsn)))
        asyncio.run(migrate(services.primary_dsn, "upgrade", "head"))
    return services.primary_dsn


def owner(dsn: str) -> str:
    return dsn.replace("//headroom:", "//headroom_owner:")


async def undone(dsn: str, *statements: str) -> None:
    async with connected(dsn) as connection:
        transaction = connection.transaction()
        await transaction.start()
        for statement in statements:
            await connection.execute(statement)
        await transaction.rollback()


async def test_control_where_one_role_does_everything_it_can_drop_the_trigger(services: DataServices) -> None:
    await undone(services.primary_dsn, "DROP TRIGGER append_only ON audit_entries", "DROP TABLE audit_entries")


@pytest.mark.parametrize("table", ["audit_entries", "audit_checkpoints"])
@pytest.mark.parametrize("change", CHANGES)
async def test_the_service_can_not_change_the_log(dsn: str, table: str, change: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await undone(dsn, change.format(table))


@pytest.mark.parametrize("change", BY_ANY_NAME)
async def test_nor_by_a_way_around(dsn: str, change: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await undone(dsn, change)


async def test_control_the_owner_can(dsn: str) -> None:
    await undone(owner(dsn), "ALTER TABLE audit_entries DISABLE TRIGGER append_only")
    await undone(owner(dsn), "DROP TRIGGER append_only ON audit_entries", "DROP TABLE audit_entries")


async def test_the_service_appends_and_does_its_work(dsn: str) -> None:
    await undone(dsn, APPEND, "SELECT * FROM audit_entries", "SELECT * FROM audit_checkpoints")
    await undone(dsn, "DELETE FROM checkouts", "DELETE FROM equipment", "SELECT expire_idempotency_keys()")
    await undone(dsn, "SELECT id FROM users FOR UPDATE", "SELECT version_num FROM alembic_version")


async def test_a_table_that_is_made_later_has_its_rights(services: DataServices, dsn: str) -> None:
    async with connected(owner(dsn)) as connection:
        await connection.execute("CREATE TABLE later (a int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await undone(dsn, "INSERT INTO later VALUES (1)")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MIGRATION_DATABASE_URL", as_asyncpg(owner(dsn)))
            await migrate(dsn, "upgrade", "head")
        await undone(dsn, "INSERT INTO later VALUES (1)", "UPDATE later SET a = 2", "DELETE FROM later")
        await connection.execute("DROP TABLE later")


async def test_to_separate_them_again_changes_nothing(services: DataServices, dsn: str) -> None:
    await asyncio.to_thread(postgres.separate_owner, services.cluster.primary)
    await undone(dsn, APPEND, "DELETE FROM checkouts")
