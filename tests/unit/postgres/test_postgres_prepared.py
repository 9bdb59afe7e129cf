from typing import Any

import pytest
from sqlalchemy import Column, Enum, Integer, MetaData, Table, Text, func, literal, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.platform.postgres import prepared as room
from app.platform.postgres.prepared import Prepared, Statements, named

items = Table(
    "items",
    MetaData(),
    Column("id", Integer),
    Column("name", Text),
    Column("tags", ARRAY(Text)),
    Column("notes", JSONB),
    Column("colour", Enum("red", "blue", name="colour")),
)


def by_name(name: str) -> Any:
    return select(items.c.id, items.c.tags, items.c.notes).where(items.c.name == named("name", name, items.c.name))


def test_values_are_put_where_the_driver_looks_for_them():
    both = by_name("a").where(items.c.id > named("least", 0, items.c.id))
    prepared = Prepared(both)
    assert "items.name = $1::VARCHAR" in prepared.sql
    assert prepared.arguments({"least": 7, "name": "b", "of no matter": 0}) == ["b", 7]


def test_a_value_that_is_missing_is_not_taken_from_the_first_caller():
    with pytest.raises(KeyError):
        Prepared(by_name("the first caller's")).arguments({})


@pytest.mark.parametrize(
    "statement",
    [
        select(items.c.id).where(items.c.name == "a constant"),
        select(items.c.id).limit(1),
        select(func.coalesce(items.c.name, literal("x"))),
    ],
)
def test_a_value_without_a_name_is_refused(statement: Any):
    with pytest.raises(TypeError, match="without a name"):
        Prepared(statement)


def test_a_type_that_the_driver_does_not_know_is_refused():
    with pytest.raises(TypeError, match="colour"):
        Prepared(select(items.c.colour))


def test_a_shape_is_built_once_and_there_is_an_end_to_shapes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "MAX_SHAPES", 2)
    built: list[str] = []

    def build(name: str) -> Any:
        built.append(name)
        return Prepared(select(literal_column(f"'{name}'", Text)))

    statements = Statements()
    for name in ("a", "b", "a", "c", "a", "b"):
        statements.get(name, lambda name=name: build(name))  # type: ignore[misc]
    assert built == ["a", "b", "c", "b"]
