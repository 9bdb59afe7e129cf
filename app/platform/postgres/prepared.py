"""Statements that are built and compiled once for each shape, and then run with the values of a request.

SQLAlchemy writes the SQL; what it does around each execution (a session's connection, a cursor, a result) costs five
times what the driver does for a list of twenty. A statement that is asked for by shape goes to the driver directly.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ARRAY, JSON, Boolean, Date, DateTime, Enum, Integer, Numeric, Select, String, Uuid, bindparam
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.types import TypeEngine

MAX_SHAPES = 1_000
DIALECT = dialect()  # type: ignore[no-untyped-call]
# What the driver gives and takes as Python knows it; SQLAlchemy has taught each connection JSON.
PLAIN = (JSON, String, Integer, Numeric, Boolean, Date, DateTime, Uuid)

Values = Mapping[str, Any]
Row = dict[str, Any]
Statement = Select[Any] | ReturningInsert[Any]


class Prepared:
    """A select whose values all have names (`named`), or an insert of these columns, which are the names then.

    Raises `TypeError` for a value without one, since it would be the first caller's for everybody, and for types that
    the driver doesn't know.
    """

    __slots__ = ("_json", "_names", "sql", "statement")

    def __init__(self, statement: Statement, columns: Sequence[str] | None = None) -> None:
        compiled = statement.compile(dialect=DIALECT, column_keys=columns)
        if nameless := [bind.key for bind in compiled.binds.values() if bind.unique]:
            raise TypeError(f"values without a name: {', '.join(nameless)}")
        if odd := [column for column in statement.exported_columns if not _is_plain(column.type)]:
            raise TypeError(f"the driver doesn't know the type of {', '.join(map(str, odd))}: read it by `execute`")
        self.statement = statement
        self.sql = str(compiled)
        self._names: Sequence[str] = compiled.positiontup or ()
        self._json = [place for place, name in enumerate(self._names) if isinstance(compiled.binds[name].type, JSON)]

    def arguments(self, values: Values) -> list[Any]:
        """In the order of the placeholders. Raises `KeyError` for a value that is missing."""
        arguments = [values[name] for name in self._names]
        for place in self._json:
            arguments[place] = orjson.dumps(arguments[place]).decode()
        return arguments


class Statements:
    """Of one repository, by shape; the least recently used goes when there are `MAX_SHAPES`."""

    def __init__(self) -> None:
        self._prepared: OrderedDict[Hashable, Prepared] = OrderedDict()

    def get(self, shape: Hashable, build: Callable[[], Prepared]) -> Prepared:
        """`build` may depend on nothing but the shape, and on values that have names."""
        found = self._prepared.get(shape)
        if found is None:
            found = self._prepared[shape] = build()
            if len(self._prepared) > MAX_SHAPES:
                self._prepared.popitem(last=False)
        else:
            self._prepared.move_to_end(shape)
        return found


def named(name: str, value: Any, like: Any) -> Any:
    """A value with a name, of the type of a column."""
    return bindparam(name, value, like.type)


def _is_plain(kind: TypeEngine[Any]) -> bool:
    inner = kind.item_type if isinstance(kind, ARRAY) else kind
    return isinstance(inner, PLAIN) and not isinstance(inner, Enum)
