"""Every query about checkouts."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    Uuid,
    any_,
    case,
    func,
    insert,
    literal,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.checkouts.models import Checkout
from app.features.checkouts.schemas import OWN_FIELDS, CheckoutsQuery
from app.platform.http.pagination import Listing, Slice, Window
from app.platform.http.totals import total_of
from app.platform.postgres import Prepared, Statements, fetch, named, repository
from app.platform.postgres.base import uuid7

Row = dict[str, Any]
STATEMENTS = Statements()
LISTING = Listing(
    name="checkouts",
    sorts={
        "checked_out_at": Checkout.checked_out_at,
        "due_at": Checkout.due_at,
        "updated_at": Checkout.updated_at,
    },
    default_sort="-checked_out_at",
    tiebreak=Checkout.id,
)

IS_OPEN = Checkout.returned_at.is_(None)
# The status is not stored: it would have to be changed by the mere passing of time.
IS_OVERDUE = IS_OPEN & (Checkout.due_at < func.now())
STATUS = case(
    (~IS_OPEN, literal_column("'returned'", Text)),
    (IS_OVERDUE, literal_column("'overdue'", Text)),
    else_=literal_column("'open'", Text),
).label("status")
BY_STATUS = {"open": IS_OPEN, "overdue": IS_OVERDUE, "returned": ~IS_OPEN}


def columns(fields: Collection[str]) -> list[Any]:
    return [STATUS if name == "status" else getattr(Checkout, name) for name in fields]


def _ids(values: Sequence[UUID]) -> ColumnElement[Sequence[UUID]]:
    """One parameter however many there are, so that one prepared statement serves all."""
    return literal(list(values), ARRAY(Uuid))


# The condition that each filter with a value makes of it.
FILTERS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "user_id": lambda value: Checkout.user_id == named("user_id", value, Checkout.user_id),
    "equipment_id": lambda value: Checkout.equipment_id == named("equipment_id", value, Checkout.equipment_id),
    "updated_since": lambda value: Checkout.updated_at >= named("updated_since", value, Checkout.updated_at),
}


def given(query: CheckoutsQuery) -> dict[str, Any]:
    """The filters with a value that are in use."""
    values = {name: value for name in FILTERS if (value := getattr(query, name)) is not None}
    if query.user_id is not None:
        values["user_id"] = UUID(query.user_id)
    return values


@repository
class CheckoutRepository:
    """Sees one organization only."""

    def __init__(self, session: AsyncSession, organization_id: UUID) -> None:
        self.session = session
        self.organization_id = organization_id

    def matching(self, query: CheckoutsQuery, fields: Sequence[str] = ("id",)) -> Select[Any]:
        """The checkouts that the filters let through, unordered."""
        statuses = () if query.status is None else (BY_STATUS[query.status],)
        filters = (FILTERS[name](value) for name, value in given(query).items())
        return select(*columns(fields)).where(self._own, *statuses, *filters)

    async def page(self, query: CheckoutsQuery, fields: Sequence[str], window: Window) -> Slice:
        filters = given(query)
        statement = STATEMENTS.get(
            ("page", *fields, query.status, *filters, window.shape),
            lambda: Prepared(window.apply(self.matching(query, fields))),
        )
        values = {"organization_id": self.organization_id, **filters, **window.values()}
        rows = await fetch(self.session, statement, values)
        return window.slice(rows, await total_of(self.session, partial(self.matching, query), query.total))

    async def get(self, checkout_id: UUID, fields: Sequence[str] = OWN_FIELDS) -> Row | None:
        def build() -> Prepared:
            return Prepared(
                select(*columns(fields)).where(self._own, Checkout.id == named("id", checkout_id, Checkout.id))
            )

        values = {"organization_id": self.organization_id, "id": checkout_id}
        rows = await fetch(self.session, STATEMENTS.get(("get", *fields), build), values)
        return rows[0] if rows else None

    async def add(self, values: Mapping[str, Any]) -> Row:
        """Raises `sqlalchemy.exc.IntegrityError` when the item is out already."""
        values = {"organization_id": self.organization_id, "id": uuid7(), **values}
        statement = STATEMENTS.get(
            ("add", *values), lambda: Prepared(insert(Checkout).returning(*columns(OWN_FIELDS)), columns=tuple(values))
        )
        [row] = await fetch(self.session, statement, values)
        return row

    async def close(self, checkout_id: UUID, condition: str | None, return_note: str | None) -> Row | None:
        """Close an open checkout; None when there is no such one."""
        statement = (
            update(Checkout)
            .where(self._own, Checkout.id == checkout_id, IS_OPEN)
            .values(returned_at=func.now(), condition=condition, return_note=return_note, updated_at=func.now())
        )
        return await self._one(statement.returning(*columns(OWN_FIELDS)))

    async def newest_of(self, equipment_ids: Sequence[UUID], fields: Sequence[str], most: int) -> Sequence[Any]:
        """The newest checkouts of each of these items, at most `most` of each, as (equipment_id, *fields)."""
        items = select(func.unnest(_ids(equipment_ids)).label("id")).subquery()
        newest = (
            select(*columns(fields))
            .where(self._own, Checkout.equipment_id == items.c.id)
            .order_by(Checkout.checked_out_at.desc(), Checkout.id.desc())
            .limit(most)
            .lateral("newest")
        )
        statement = select(items.c.id.label("item"), newest).join(newest, true())
        return (await self.session.execute(statement)).mappings().all()

    async def open_of(self, equipment_ids: Sequence[UUID], fields: Sequence[str]) -> Sequence[Any]:
        """The open checkout of each of these items that is out."""
        statement = select(Checkout.equipment_id.label("item"), *columns(fields))
        statement = statement.where(self._own, Checkout.equipment_id == any_(_ids(equipment_ids)), IS_OPEN)
        return (await self.session.execute(statement)).mappings().all()

    async def figures(self) -> Row:
        statement = select(func.count().label("open"), func.count().filter(IS_OVERDUE).label("overdue"))
        return dict((await self.session.execute(statement.where(self._own, IS_OPEN))).mappings().one())

    @property
    def _own(self) -> ColumnElement[bool]:
        column = Checkout.organization_id
        own: ColumnElement[bool] = column == named("organization_id", self.organization_id, column)
        return own

    async def _one(self, statement: Any) -> Row | None:
        row = (await self.session.execute(statement)).mappings().one_or_none()
        return None if row is None else dict(row)
