"""How many rows a list has: counted, or as the planner sees it."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Executable, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement

from app.platform.http.pagination import Total


class Explain(Executable, ClauseElement):
    """`EXPLAIN (FORMAT JSON)` of a select: plans it, does not run it."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(Explain)
def _compile_explain(element: Explain, compiler: SQLCompiler, **options: Any) -> str:
    return "EXPLAIN (FORMAT JSON) " + compiler.process(element.statement, **options)


async def total_of(session: AsyncSession, statement: Callable[[], Select[Any]], total: Total) -> int | None:
    """The rows of a filtered select, before its window is applied; None for `none`, and then it isn't even built.

    `exact` reads them all (a cost that grows with them); `estimate` is the planner's guess from its statistics, in the
    time that planning takes.
    """
    if total == "none":
        return None
    rows = statement().order_by(None)
    if total == "exact":
        counted = await session.execute(select(func.count()).select_from(rows.subquery()))
        return int(counted.scalar_one())
    explained = (await session.execute(Explain(rows))).scalar_one()
    return int(explained[0]["Plan"]["Plan Rows"])
