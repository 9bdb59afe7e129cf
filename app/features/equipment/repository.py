"""Every query about equipment."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, func, insert, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.equipment.models import Equipment
from app.features.equipment.schemas import OWN_FIELDS, EquipmentQuery
from app.platform.http.pagination import Listing, Slice, Window
from app.platform.http.totals import total_of
from app.platform.postgres import Prepared, Statements, fetch, named, repository
from app.platform.postgres.base import uuid7

LISTING = Listing(
    name="equipment",
    sorts={
        "name": Equipment.name,
        "asset_tag": Equipment.asset_tag,
        "created_at": Equipment.created_at,
        "updated_at": Equipment.updated_at,
    },
    default_sort="name",
    tiebreak=Equipment.id,
)
STATEMENTS = Statements()
SIMPLE: ColumnElement[str] = literal_column("'simple'")
Row = dict[str, Any]


def columns(fields: Collection[str]) -> list[Any]:
    """The columns behind these fields; the others are not even read."""
    return [getattr(Equipment, name) for name in fields]


def search_query(words: str) -> str:
    """Full-text query for rows that hold each word, or a word that begins like it."""
    return " & ".join(f"'{word}':*" for word in re.split(r"[\W_]+", words) if word)


# The condition that each filter makes of its value.
FILTERS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "category": lambda value: Equipment.category == named("category", value, Equipment.category),
    "status": lambda value: Equipment.status == named("status", value, Equipment.status),
    "location": lambda value: Equipment.location == named("location", value, Equipment.location),
    "tag": lambda value: Equipment.tags.contains(named("tag", value, Equipment.tags)),
    "q": lambda value: Equipment.search.op("@@")(func.to_tsquery(SIMPLE, named("q", value, Equipment.name))),
    "updated_since": lambda value: Equipment.updated_at >= named("updated_since", value, Equipment.updated_at),
}


def given(query: EquipmentQuery) -> dict[str, Any]:
    """The filters that are in use."""
    values = {name: value for name in FILTERS if (value := getattr(query, name)) not in (None, [])}
    if query.q is not None:
        values["q"] = search_query(query.q)
    return values


@repository
class EquipmentRepository:
    """Sees one organization only."""

    def __init__(self, session: AsyncSession, organization_id: UUID) -> None:
        self.session = session
        self.organization_id = organization_id

    def matching(self, query: EquipmentQuery, fields: Sequence[str] = ("id",)) -> Select[Any]:
        """The items that the filters let through, unordered."""
        return select(*columns(fields)).where(
            self._own, *(FILTERS[name](value) for name, value in given(query).items())
        )

    async def page(self, query: EquipmentQuery, fields: Sequence[str], window: Window) -> Slice:
        filters = given(query)
        statement = STATEMENTS.get(
            ("page", *fields, *filters, window.shape), lambda: Prepared(window.apply(self.matching(query, fields)))
        )
        values = {"organization_id": self.organization_id, **filters, **window.values()}
        rows = await fetch(self.session, statement, values)
        return window.slice(rows, await total_of(self.session, partial(self.matching, query), query.total))

    async def get(self, equipment_id: UUID, fields: Sequence[str] = OWN_FIELDS) -> Row | None:
        def build() -> Prepared:
            return Prepared(
                select(*columns(fields)).where(self._own, Equipment.id == named("id", equipment_id, Equipment.id))
            )

        values = {"organization_id": self.organization_id, "id": equipment_id}
        rows = await fetch(self.session, STATEMENTS.get(("get", *fields), build), values)
        return rows[0] if rows else None

    async def lock(self, equipment_id: UUID) -> Row | None:
        """Status and version of an item that no one else can change until the transaction ends."""
        statement = select(Equipment.status, Equipment.version).where(self._own, Equipment.id == equipment_id)
        return await self._one(statement.with_for_update())

    async def add(self, values: Mapping[str, Any]) -> Row:
        """Raises `sqlalchemy.exc.IntegrityError` when the asset tag is taken."""
        values = {"organization_id": self.organization_id, "id": uuid7(), **values}
        statement = STATEMENTS.get(
            ("add", *values), lambda: Prepared(insert(Equipment).returning(*columns(OWN_FIELDS)), columns=tuple(values))
        )
        [row] = await fetch(self.session, statement, values)
        return row

    async def change(
        self, equipment_id: UUID, values: Mapping[str, Any], *conditions: ColumnElement[bool]
    ) -> Row | None:
        """Change an item that meets the conditions, and count its version up; None when there is no such item."""
        statement = (
            update(Equipment)
            .where(self._own, Equipment.id == equipment_id, *conditions)
            .values(**values, version=Equipment.version + 1, updated_at=func.now())
        )
        return await self._one(statement.returning(*columns(OWN_FIELDS)))

    async def remove(self, equipment_id: UUID) -> None:
        await self.session.execute(delete(Equipment).where(self._own, Equipment.id == equipment_id))

    async def figures(self) -> tuple[Row, ...]:
        """Number and value of the items, by category and status."""
        statement = select(
            Equipment.category,
            Equipment.status,
            func.count().label("items"),
            func.coalesce(func.sum(Equipment.purchase_price), 0).label("value"),
        )
        rows = await self.session.execute(statement.where(self._own).group_by(Equipment.category, Equipment.status))
        return tuple(dict(row) for row in rows.mappings())

    @property
    def _own(self) -> ColumnElement[bool]:
        column = Equipment.organization_id
        own: ColumnElement[bool] = column == named("organization_id", self.organization_id, column)
        return own

    async def _one(self, statement: Any) -> Row | None:
        row = (await self.session.execute(statement)).mappings().one_or_none()
        return None if row is None else dict(row)
