from typing import Any

import pytest
from sqlalchemy import column, select, table
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from app.platform.http.totals import total_of

ROWS = select(column("id")).select_from(table("items")).where(column("name") == "a").order_by(column("name"))


class Session:
    """Keeps the statements that it was given."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.statements: list[str] = []

    async def execute(self, statement: Any) -> "Session":
        self.statements.append(" ".join(str(statement.compile(dialect=dialect())).split()))
        return self

    def scalar_one(self) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("total", "answer", "found", "statements"),
    [
        ("none", None, None, []),
        (
            "exact",
            5,
            5,
            ["SELECT count(*) AS count_1 FROM (SELECT id FROM items WHERE name = $1::VARCHAR) AS anon_1"],
        ),
        (
            "estimate",
            [{"Plan": {"Plan Rows": 7}}],
            7,
            ["EXPLAIN (FORMAT JSON) SELECT id FROM items WHERE name = $1::VARCHAR"],
        ),
    ],
)
async def test_a_total_costs_what_was_asked_for(total: Any, answer: Any, found: int | None, statements: list[str]):
    session = Session(answer)
    assert await total_of(session, lambda: ROWS, total) == found  # type: ignore[arg-type]
    assert session.statements == statements
