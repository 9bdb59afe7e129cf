"""The plan that a statement was really run by, as `auto_explain` tells it: not what a statement with other parameters,
or unprepared, would be run by."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from bench.plans import Plan
from tests.support.stack import as_asyncpg, superuser

# From its sixth run on a prepared statement may have a generic plan, made without a look at its parameters.
RUNS = 7
TELL_EVERY_PLAN = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_min_duration = 0",
    "SET auto_explain.log_analyze = on",
    "SET auto_explain.log_buffers = on",
    "SET auto_explain.log_timing = off",
    "SET auto_explain.log_format = json",
    "SET auto_explain.log_level = notice",
    "SET jit = off",
)
BIG = frozenset(
    (
        *("equipment", "checkouts", "organizations", "users", "sessions", "api_keys", "invitations", "audit_entries"),
        *("single_use_tokens", "second_factors", "recovery_codes"),
    )
)


class Plans:
    """A session for repositories, and the plans of what they do with it."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.seen: list[Plan] = []

    async def of(self, work: Callable[[], Awaitable[Any]], runs: int = RUNS) -> list[Plan]:
        """The plans of the last of several runs."""
        for _ in range(runs):
            self.seen.clear()
            await work()
        return list(self.seen)

    def _hear(self, _connection: Any, message: Any) -> None:
        _, found, plan = message.message.partition("plan:\n")
        if found:
            self.seen.append(Plan(json.loads(plan)["Plan"], BIG))


@asynccontextmanager
async def told_plans(dsn: str) -> AsyncIterator[Plans]:
    engine = create_async_engine(as_asyncpg(superuser(dsn)), isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        plans = Plans(session)
        driver = (await (await session.connection()).get_raw_connection()).driver_connection
        driver.add_log_listener(plans._hear)
        for setting in TELL_EVERY_PLAN:
            await driver.execute(setting)
        yield plans
    await engine.dispose()
