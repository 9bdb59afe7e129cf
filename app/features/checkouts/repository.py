"""Every query about checkouts."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Uuid, any_, case, func, insert, literal, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.checkouts.models import Checkout
from app.features.checkouts.schemas import OWN_FIELDS, CheckoutsQuery
from app.platform.http.pagination import Listing, Slice, Window
from app.platform.http.totals import total_of

Row = dict[str, Any]
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
STATUS = case((~IS_OPEN, "returned"), (IS_OVERDUE, "overdue"), else_="open").label("status")
BY_STATUS = {"open": IS_OPEN, "overdue": IS_OVERDUE, "returned": ~IS_OPEN}


def columns(fields: Collection[str]) -> list[Any]:
    return [STATUS if name == "status" else getattr(Checkout, name) for name in fields]


def _ids(values: Sequence[UUID]) -> ColumnElement[Sequence[UUID]]:
    """One parameter however many there are, so that one prepared statement serves all."""
    return literal(list(values), ARRAY(Uuid))


class CheckoutRepository:
    """Sees one organization only."""

    def __init__(self, session: AsyncSession, organization_id: UUID) -> None:
        self.session = session
        self.organization_id = organization_id

    def matching(self, query: CheckoutsQuery, fields: Sequence[str] = ("id",)) -> Select[Any]:
        """The checkouts that the filters let through, unordered."""
        return select(*columns(fields)).where(self._own, *self._filters(query))

    async def page(self, query: CheckoutsQuery, fields: Sequence[str], window: Window) -> Slice:
        rows = await self.session.execute(window.apply(self.matching(query, fields)))
        return window.slice(rows.mappings().all(), await total_of(self.session, self.matching(query), query.total))

    async def get(self, checkout_id: UUID, fields: Sequence[str] = OWN_FIELDS) -> Row | None:
        return await self._one(select(*columns(fields)).where(self._own, Checkout.id == checkout_id))

    async def add(self, values: Mapping[str, Any]) -> Row:
        """Raises `sqlalchemy.exc.IntegrityError` when the item is out already."""
        statement = insert(Checkout).values(organization_id=self.organization_id, **values)
        row = await self._one(statement.returning(*columns(OWN_FIELDS)))
        assert row is not None
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
        return Checkout.organization_id == self.organization_id

    def _filters(self, query: CheckoutsQuery) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if query.status is not None:
            found.append(BY_STATUS[query.status])
        if query.user_id is not None:
            found.append(Checkout.user_id == UUID(query.user_id))
        if query.equipment_id is not None:
            found.append(Checkout.equipment_id == query.equipment_id)
        if query.updated_since is not None:
            found.append(Checkout.updated_at >= query.updated_since)
        return found

    async def _one(self, statement: Any) -> Row | None:
        row = (await self.session.execute(statement)).mappings().one_or_none()
        return None if row is None else dict(row)
