from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import Column as C
from sqlalchemy import DateTime, MetaData, Select, Table, Text, Uuid, select
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.datastructures import URL

from app.platform.http.pagination import MAX_LINK, CursorSigner, Listing, ListParams, Slice, Window, link_header
from app.platform.http.problems import InvalidRequest

items = Table(
    "items", MetaData(), C("org", Uuid), C("id", Uuid), C("name", Text), C("updated_at", DateTime(timezone=True))
)
LISTING = Listing("items", {"name": items.c.name, "updated_at": items.c.updated_at}, "name", items.c.id)
CURSORS = CursorSigner("secret")
ORGANIZATION = UUID(int=7)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]


class Params(ListParams):
    status: str | None = None


def window(**parameters: Any) -> Window:
    return CURSORS.window(LISTING, Params(**parameters), scope=ORGANIZATION)


def sql(statement: Select[Any]) -> str:
    return " ".join(str(statement.compile(dialect=dialect())).split())


def row(number: int) -> dict[str, Any]:
    return {"id": UUID(int=number), "name": f"n{number}"}


def errors_of(call: Callable[[], object]) -> list[Any]:
    with pytest.raises(InvalidRequest) as refused:
        call()
    return list(refused.value.errors or [])


def test_the_first_page_reads_one_row_more_than_it_shows():
    statement = window(limit=2).apply(select(items.c.id, items.c.name).where(items.c.org == ORGANIZATION))
    assert sql(statement) == (
        "SELECT items.id, items.name FROM items WHERE items.org = $1::UUID "
        "ORDER BY items.name ASC, items.id ASC LIMIT $2::INTEGER"
    )
    assert statement.compile(dialect=dialect()).params["page_limit"] == 3


def test_the_next_page_begins_by_one_row_wise_comparison():
    cursor = window(limit=1).slice([row(1), row(2)]).next_cursor
    statement = window(limit=1, cursor=cursor).apply(select(items.c.id, items.c.name))
    assert sql(statement) == (
        "SELECT items.id, items.name FROM items WHERE (items.name, items.id) > ($1::VARCHAR, $2::UUID) "
        "ORDER BY items.name ASC, items.id ASC LIMIT $3::INTEGER"
    )


def test_descending_and_backwards_turn_key_and_tiebreak_together():
    position = window(limit=1, sort="-name").slice([row(2), row(1)])
    assert "(items.name, items.id) < " in sql(
        window(limit=1, sort="-name", cursor=position.next_cursor).apply(select(items.c.id))
    )
    later = window(limit=1, sort="-name", cursor=position.next_cursor).slice([row(1)])
    backwards = sql(window(limit=1, sort="-name", cursor=later.prev_cursor).apply(select(items.c.id)))
    assert "(items.name, items.id) > " in backwards
    assert "ORDER BY items.name ASC, items.id ASC" in backwards


def test_columns_that_only_the_cursor_needs_are_read_and_taken_out():
    page = window(limit=1, sort="updated_at")
    assert sql(page.apply(select(items.c.name))).startswith(
        "SELECT items.name, items.updated_at AS _page_key, items.id AS _page_tiebreak FROM"
    )
    read = [
        {"name": str(n), "_page_key": datetime(2026, 1, n, tzinfo=UTC), "_page_tiebreak": UUID(int=n)} for n in (1, 2)
    ]
    result = page.slice(read)
    assert result.items == [{"name": "1"}]
    assert window(sort="updated_at", cursor=result.next_cursor).position.values == (  # type: ignore[union-attr]
        datetime(2026, 1, 1, tzinfo=UTC),
        UUID(int=1),
    )


def test_columns_of_mapped_classes_are_recognized():
    listing = Listing("items", {"name": Item.name}, "name", Item.id)
    statement = CURSORS.window(listing, ListParams(), scope=None).apply(select(Item.id, Item.name))
    assert sql(statement).startswith("SELECT items.id, items.name FROM")


def test_a_label_of_another_column_is_not_taken_for_the_sort_key():
    statement = window().apply(select(items.c.org.label("name"), items.c.id))
    assert "items.name AS _page_key" in sql(statement)


def test_the_statement_keeps_its_shape_so_that_it_is_compiled_once():
    cursors = [window(limit=1).slice([row(n), row(n + 1)]).next_cursor for n in (1, 2)]
    statements = [
        window(limit=limit, cursor=cursor).apply(select(items.c.id))
        for limit, cursor in zip((5, 9), cursors, strict=True)
    ]
    first, second = (statement._generate_cache_key() for statement in statements)
    assert first is not None
    assert second is not None
    assert first.key == second.key


def test_pages_by_number_skip_and_lead_on_to_cursors():
    page = window(limit=10, page=3)
    assert sql(page.apply(select(items.c.id))).endswith("LIMIT $1::INTEGER OFFSET $2::INTEGER")
    assert page.offset == 20
    result = page.slice([row(n) for n in range(11)])
    assert result.next_cursor
    assert result.prev_cursor


def test_the_ends_of_a_list_have_no_further_cursor():
    only = window(limit=2).slice([row(1), row(2)])
    assert (only.next_cursor, only.prev_cursor) == (None, None)
    empty = window(limit=2).slice([])
    assert empty == Slice([], None, None)


def test_the_body_tells_the_total_only_where_it_was_asked_for():
    assert window().slice([row(1)]).body() == {"items": [row(1)], "next_cursor": None, "prev_cursor": None}
    assert window().slice([], total=0).body()["total"] == 0


Key = tuple[str, int]


class List:
    """Rows in memory that answer a window as the database answers its statement."""

    def __init__(self, keys: set[Key]) -> None:
        self.keys = keys

    def read(self, limit: int, sort: str, cursor: str | None) -> Slice:
        page = window(limit=limit, sort=sort, cursor=cursor)
        descending = page.order.descending != page.backwards
        rows = sorted(self.keys, reverse=descending)
        if page.position is not None:
            name, identity = page.position.values
            edge = (name, identity.int)
            rows = [key for key in rows if (key < edge if descending else key > edge)]
        return page.slice([{"name": name, "id": UUID(int=number)} for name, number in rows[: limit + 1]])


def walk(rows: List, limit: int, sort: str, start: str | None, step: str, meanwhile: Callable[[], None]) -> list[Key]:
    seen: list[Key] = []
    cursor = start
    while True:
        page = rows.read(limit, sort, cursor)
        found = [(item["name"], item["id"].int) for item in page.items]
        seen = found + seen if step == "prev_cursor" else seen + found
        cursor = getattr(page, step)
        if cursor is None:
            return seen
        meanwhile()


KEYS = st.sets(st.tuples(st.sampled_from(["a", "b", "ä", ""]), st.integers(0, 1_000)), min_size=1, max_size=60)


@given(KEYS, st.integers(1, 7), st.sampled_from(["name", "-name"]))
def test_walking_there_and_back_shows_each_row_once(keys: set[Key], limit: int, sort: str):
    rows = List(keys)
    expected = sorted(keys, reverse=sort == "-name")
    assert walk(rows, limit, sort, None, "next_cursor", lambda: None) == expected
    last = expected[-1]
    end = window(limit=1, sort=sort, page=2).slice([{"name": last[0], "id": UUID(int=last[1])}]).prev_cursor
    assert walk(rows, limit, sort, end, "prev_cursor", lambda: None) == expected[:-1]


@given(KEYS, KEYS, st.integers(1, 7))
def test_rows_inserted_while_walking_make_none_skipped_and_none_twice(keys: set[Key], arriving: set[Key], limit: int):
    rows, waiting = List(set(keys)), list(arriving - keys)
    seen = walk(rows, limit, "name", None, "next_cursor", lambda: rows.keys.update(waiting[-1:] and [waiting.pop()]))
    assert len(seen) == len(set(seen))
    assert keys <= set(seen)


def test_an_unknown_sort_key_is_named_with_the_known_ones():
    [error] = errors_of(lambda: window(sort="-colour"))
    assert error["loc"] == ["query", "sort"]
    assert "'colour'" in error["msg"]
    assert "name, updated_at" in error["msg"]


@pytest.mark.parametrize(
    ("made", "used"),
    [
        ({}, {"sort": "-name"}),
        ({}, {"status": "retired"}),
        ({"status": "retired"}, {}),
        ({"status": "retired"}, {"status": "available"}),
    ],
)
def test_a_cursor_of_another_sort_or_filter_is_refused(made: dict[str, str], used: dict[str, str]):
    cursor = window(limit=1, **made).slice([row(1), row(2)]).next_cursor
    [error] = errors_of(lambda: window(cursor=cursor, **used))
    assert error["loc"] == ["query", "cursor"]


def test_a_cursor_of_another_organization_or_list_is_refused():
    cursor = window(limit=1).slice([row(1), row(2)]).next_cursor
    other = Listing("others", LISTING.sorts, "name", items.c.id)
    params = Params(cursor=cursor)
    for call in (
        lambda: CURSORS.window(LISTING, params, scope=UUID(int=8)),
        lambda: CURSORS.window(other, params, scope=ORGANIZATION),
        lambda: CursorSigner("another").window(LISTING, params, scope=ORGANIZATION),
    ):
        assert errors_of(call)[0]["loc"] == ["query", "cursor"]


def test_a_cursor_goes_on_with_another_limit_and_other_fields():
    cursor = window(limit=1).slice([row(1), row(2)]).next_cursor
    assert window(limit=50, fields="name", expand="x", total="exact", cursor=cursor).position is not None


def test_a_cursor_and_a_page_number_exclude_each_other():
    cursor = window(limit=1).slice([row(1), row(2)]).next_cursor
    assert errors_of(lambda: window(cursor=cursor, page=2))[0]["loc"] == ["query", "page"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": 0},
        {"limit": 201},
        {"page": 0},
        {"page": 201},
        {"cursor": "x" * 3_000},
        {"total": "all"},
        {"colour": 1},
    ],
)
def test_parameters_out_of_bounds_are_refused(parameters: dict[str, Any]):
    with pytest.raises(ValidationError):
        ListParams(**parameters)


def test_links_keep_the_query_and_go_by_cursor():
    url = URL("http://host/api/v1/items?page=2&status=a%26b&limit=5")
    assert link_header(url, Slice([], next_cursor="N", prev_cursor="P")) == {
        "Link": '</api/v1/items?status=a%26b&limit=5&cursor=N>; rel="next", '
        '</api/v1/items?status=a%26b&limit=5&cursor=P>; rel="prev"'
    }


def test_there_is_no_link_without_a_further_page_nor_one_too_long_for_a_header():
    assert link_header(URL("http://host/x"), Slice([], None, None)) == {}
    assert link_header(URL("http://host/x?q=" + "y" * MAX_LINK), Slice([], "N", None)) == {}


def test_a_walk_over_equal_times_needs_the_tiebreak():
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)
    read = [{"id": UUID(int=n), "name": "x", "updated_at": moment} for n in (1, 2)]
    cursor = window(limit=1, sort="updated_at").slice(read).next_cursor
    assert window(sort="updated_at", cursor=cursor).position.values == (moment, UUID(int=1))  # type: ignore[union-attr]
