"""`python -m bench.explain`: the plan of every query of the repositories, on the database of DATABASE_URL.

Plain EXPLAIN runs nothing. `--analyze` runs each query, twice, and rolls back what it wrote. Ends with 1 where a big
table is read from end to end, but to count it.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, groupby
from typing import Any
from uuid import UUID

from sqlalchemy import event, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from app.features.equipment.models import Equipment
from app.settings import Settings
from bench.plans import Plan
from bench.queries import Examples, Query
from bench.single_queries import queries

BIG_ROWS = 10_000
BIG_TABLES = text("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples >= :rows")


class Explained(Exception):
    """In place of the rows that the repository is waiting for."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self.rows = rows


@contextmanager
def explaining(engine: AsyncEngine, options: str, number: int = 0) -> Iterator[None]:
    """Whatever is sent meanwhile is explained; the statement of that number raises `Explained`."""
    sent = count()

    def before(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        return f"EXPLAIN ({options}) {statement}", parameters

    def after(connection: Any, cursor: Any, *_: Any) -> None:
        if next(sent) == number:
            raise Explained(cursor.fetchall())

    event.listen(engine.sync_engine, "before_cursor_execute", before, retval=True)
    event.listen(engine.sync_engine, "after_cursor_execute", after)
    try:
        yield
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", before)
        event.remove(engine.sync_engine, "after_cursor_execute", after)


class Explainer:
    def __init__(self, engine: AsyncEngine, big: frozenset[str], *, analyze: bool) -> None:
        self._engine = engine
        self._big = big
        self._options = "ANALYZE, BUFFERS" if analyze else "COSTS"

    async def plan(self, query: Query) -> Plan:
        [[found]] = await self._explain(query, "JSON")
        [explained] = json.loads(found) if isinstance(found, str) else found
        return Plan(explained["Plan"], self._big)

    async def lines(self, query: Query) -> list[str]:
        return [line for (line,) in await self._explain(query, "TEXT")]

    async def _explain(self, query: Query, form: str) -> list[tuple[Any, ...]]:
        async with AsyncSession(self._engine) as session:
            with explaining(self._engine, f"{self._options}, FORMAT {form}", query.statement):
                try:
                    await query.run(session)
                except Explained as explained:
                    return explained.rows
        raise RuntimeError(f"{query.method} has sent nothing")


async def biggest_organization(session: AsyncSession) -> UUID | None:
    items = select(Equipment.organization_id).group_by(Equipment.organization_id).order_by(func.count().desc())
    return await session.scalar(items.limit(1))


async def explain(
    engine: AsyncEngine, *, analyze: bool = False, brief: bool = False, organization: UUID | None = None
) -> int:
    """Prints; the number of queries that read a big table from end to end, though not to count it."""
    async with AsyncSession(engine) as session:
        organization = organization or await biggest_organization(session)
        if organization is None:
            sys.exit("error: no equipment here; `make seed` makes some")
        examples = await Examples.of(session, organization)
        big = frozenset((await session.scalars(BIG_TABLES, {"rows": BIG_ROWS})).all())
    explainer, failed = Explainer(engine, big, analyze=analyze), 0
    for method, variants in groupby(queries(examples), key=lambda query: query.method):
        print(f"\n{method}")
        for query in variants:
            plan = await explainer.plan(query)
            failed += bool(plan.faults) and not query.counts
            print(f"  {query.variant}: {plan.verdict()}" if query.variant else f"  {plan.verdict()}")
            for line in () if brief else await explainer.lines(query):
                print(f"      {line}")
    return failed


async def main(options: argparse.Namespace) -> int:
    engine = create_async_engine(Settings().database_url.get_secret_value())
    try:
        failed = await explain(engine, **vars(options))
    finally:
        await engine.dispose()
    if failed:
        print(f"\n{failed} queries read a big table from end to end, or sort on disk", file=sys.stderr)
    return min(failed, 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.explain", description="The plans of all queries.")
    parser.add_argument("--analyze", action="store_true", help="run them, and say what it took")
    parser.add_argument("--brief", action="store_true", help="verdicts without plans")
    parser.add_argument("--organization", type=UUID, help="whose rows (default: who has the most items)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parse())))
