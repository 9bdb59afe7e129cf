"""Keyset pagination: every page costs what the first one costs, and rows that come or go meanwhile shift nothing.

A page starts at a row-wise comparison with the last row seen, on an index over the sort key and a unique tie-break
(Markus Winand, "SQL Performance Explained", chapter 7).
`page` is there for those who need it: OFFSET, with a bounded depth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field
from sqlalchemy import ColumnElement, Integer, Select, bindparam, tuple_
from sqlalchemy.orm import InstrumentedAttribute
from starlette.datastructures import URL

from app.platform.http.cursors import MAX_CURSOR, CursorSeal, InvalidCursor, Position, cursor_key
from app.platform.http.fields import FieldParams
from app.platform.http.problems import MAX_NAME, InvalidRequest
from app.platform.http.types import DigitsOnly
from app.platform.security.secrets import Keyring

MAX_LIMIT = 200
MAX_PAGE = 200
MAX_LINK = 4_096  # bytes; proxies bound the headers of an answer, and the cursors are in the body too

QUERY_CHARACTERS = "%=&+:,;@/?!$'()*"  # RFC 3986, section 3.4; what is encoded already stays as it is

LIMIT, OFFSET, AFTER_KEY, AFTER_TIEBREAK = "page_limit", "page_offset", "page_after_key", "page_after_tiebreak"
KEY_LABEL = "_page_key"
TIEBREAK_LABEL = "_page_tiebreak"

Total = Literal["none", "estimate", "exact"]
Sortable = ColumnElement[Any] | InstrumentedAttribute[Any]


class ListParams(FieldParams):
    """The query parameters of every list; a feature adds its filters in a subclass."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), DigitsOnly] = 50
    cursor: Annotated[
        str | None, Field(max_length=MAX_CURSOR, description="`next_cursor` or `prev_cursor` of an earlier page.")
    ] = None
    page: Annotated[
        Annotated[int, Field(ge=1, le=MAX_PAGE), DigitsOnly] | None,
        Field(description="By number instead of cursor; the deeper, the slower."),
    ] = None
    sort: Annotated[str | None, Field(max_length=MAX_NAME, description="A sort key; `-key` descends.")] = None
    total: Annotated[Total, Field(description="Whether to count all, and how well.")] = "none"

    def filters(self) -> dict[str, Any]:
        """What the subclass added: the parameters that decide which rows are in the list."""
        return self.model_dump(exclude=set(ListParams.model_fields))


@dataclass(frozen=True, slots=True)
class Listing:
    """A list as it is declared, once: its sort keys by name. Sort columns and tie-break are NOT NULL and indexed
    together; text among them is bounded to some 500 characters, so that a cursor can hold it."""

    name: str
    sorts: Mapping[str, Sortable]
    default_sort: str
    tiebreak: Sortable

    def order(self, sort: str | None) -> "Order":
        """Raises `InvalidRequest` naming the known keys."""
        wanted = self.default_sort if sort is None else sort
        name = wanted.removeprefix("-")
        if name not in self.sorts:
            message = f"unknown sort key '{name}'; known are: {', '.join(self.sorts)}, each also with a leading '-'"
            raise InvalidRequest.at(("query", "sort"), message, "sort_unknown")
        return Order(self.sorts[name].expression, self.tiebreak.expression, descending=wanted.startswith("-"))


@dataclass(frozen=True, slots=True)
class Order:
    key: ColumnElement[Any]
    tiebreak: ColumnElement[Any]
    descending: bool

    def reversed(self) -> "Order":
        return Order(self.key, self.tiebreak, not self.descending)

    def apply(self, statement: Select[Any]) -> Select[Any]:
        # The tie-break goes the same way as the key, so that one index serves both directions.
        columns = (self.key, self.tiebreak)
        return statement.order_by(*(column.desc() if self.descending else column.asc() for column in columns))

    def after(self, values: tuple[Any, ...]) -> ColumnElement[bool]:
        """`(key, tiebreak) > (:a, :b)`: as one row-wise comparison Postgres turns it into an index condition."""
        columns = (self.key, self.tiebreak)
        places = zip((AFTER_KEY, AFTER_TIEBREAK), columns, values, strict=True)
        bounds = tuple_(*(bindparam(name, value, column.type) for name, column, value in places))
        return tuple_(*columns) < bounds if self.descending else tuple_(*columns) > bounds


@dataclass(frozen=True, slots=True)
class Slice:
    """One page of a list."""

    items: list[dict[str, Any]]
    next_cursor: str | None
    prev_cursor: str | None
    total: int | None = None

    def body(self) -> dict[str, Any]:
        """As it goes over the wire: `total` only where it was asked for."""
        body = {"items": self.items, "next_cursor": self.next_cursor, "prev_cursor": self.prev_cursor}
        return body if self.total is None else body | {"total": self.total}


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a listing that a request asks for."""

    sort: str
    order: Order
    seal: CursorSeal
    limit: int
    offset: int
    position: Position | None

    @property
    def backwards(self) -> bool:
        return self.position is not None and self.position.direction == "prev"

    def apply(self, statement: Select[Any]) -> Select[Any]:
        """Restrict a filtered select to the window, one row further than the page to learn whether there are more."""
        order = self.order.reversed() if self.backwards else self.order
        if self.position is not None:
            statement = statement.where(order.after(self.position.values))
        values = self.values()
        statement = order.apply(self._with_edges(statement)).limit(bindparam(LIMIT, values[LIMIT], Integer))
        return statement.offset(bindparam(OFFSET, self.offset, Integer)) if self.offset else statement

    @property
    def shape(self) -> tuple[str, bool, bool, bool]:
        """What `apply` depends on beside the listing: equal shapes make equal statements, but for `values`."""
        return self.sort, self.position is not None, self.backwards, self.offset > 0

    def values(self) -> dict[str, Any]:
        """Of the parameters that `apply` adds, by name."""
        values: dict[str, Any] = {LIMIT: self.limit + 1, OFFSET: self.offset}
        if self.position is not None:
            values |= zip((AFTER_KEY, AFTER_TIEBREAK), self.position.values, strict=True)
        return values

    def slice(self, rows: Sequence[Mapping[str, Any]], total: int | None = None) -> Slice:
        """The page, of the rows that the applied statement gave."""
        more = len(rows) > self.limit
        items = [dict(row) for row in rows[: self.limit]]
        if self.backwards:
            items.reverse()
        edges = self._edges_of(items)
        after, before = (True, more) if self.backwards else (more, self.position is not None or self.offset > 0)
        return Slice(
            items,
            next_cursor=self.seal.encode(Position("next", edges[-1])) if edges and after else None,
            prev_cursor=self.seal.encode(Position("prev", edges[0])) if edges and before else None,
            total=total,
        )

    def _with_edges(self, statement: Select[Any]) -> Select[Any]:
        # A column of a mapped class is an annotated copy of the table's, with the same hash.
        held = {hash(column) for column in statement.selected_columns}
        missing = [column.label(label) for label, column in self._edges() if hash(column) not in held]
        return statement.add_columns(*missing) if missing else statement

    def _edges_of(self, items: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        """The values that a cursor at the first and at the last item needs; takes out what was only read for it."""
        if not items:
            return []
        names = [label if label in items[0] else str(column.key) for label, column in self._edges()]
        edges = [tuple(item[name] for name in names) for item in (items[0], items[-1])]
        for name in {KEY_LABEL, TIEBREAK_LABEL}.intersection(items[0]):
            for item in items:
                del item[name]
        return edges

    def _edges(self) -> tuple[tuple[str, ColumnElement[Any]], ...]:
        return (KEY_LABEL, self.order.key), (TIEBREAK_LABEL, self.order.tiebreak)


class CursorSigner:
    """Opens windows on listings; their cursors are signed with the secret of the service."""

    def __init__(self, secret: str | Keyring) -> None:
        self._keys = Keyring.of(secret).derived(cursor_key)

    def window(self, listing: Listing, params: ListParams, scope: Any) -> Window:
        """The window that the parameters ask for.

        `scope` is what else decides which rows the caller sees, the organization above all: a cursor works only where
        it, the sort and the filters of the parameters are the same. Raises `InvalidRequest` naming the parameter.
        """
        order = listing.order(params.sort)
        if params.cursor is not None and params.page is not None:
            raise InvalidRequest.at(("query", "page"), "can't be combined with cursor", "page_and_cursor")
        sort = listing.default_sort if params.sort is None else params.sort
        key, *accepted = self._keys.all
        seal = replace(CursorSeal.bind(key, listing.name, sort, scope, params.filters()), accepted=tuple(accepted))
        return Window(
            sort=sort,
            order=order,
            seal=seal,
            limit=params.limit,
            offset=((params.page or 1) - 1) * params.limit,
            position=None if params.cursor is None else _position(seal, params.cursor),
        )


def _position(seal: CursorSeal, cursor: str) -> Position:
    try:
        return seal.decode(cursor)
    except InvalidCursor:
        message = "not a cursor of this list with this sort and these filters: start again without it"
        raise InvalidRequest.at(("query", "cursor"), message, "cursor_invalid") from None


def link_header(url: URL, page: Slice) -> dict[str, str]:
    """`Link` (RFC 8288) to the pages around this one, relative to the host; left out where it would be too long."""
    given = [part for part in url.query.split("&") if part and part.partition("=")[0] not in ("page", "cursor")]
    start = f"{quote(url.path)}?{quote('&'.join([*given, 'cursor=']), safe=QUERY_CHARACTERS)}"
    targets = (("next", page.next_cursor), ("prev", page.prev_cursor))
    links = [f'<{start}{cursor}>; rel="{rel}"' for rel, cursor in targets if cursor is not None]
    link = ", ".join(links)
    return {"Link": link} if links and len(link) <= MAX_LINK else {}
