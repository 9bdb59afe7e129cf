"""Every query of the repositories, by method and variant: for `make explain` and tests/integration/test_plans.py."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.checkouts.models import Checkout
from app.features.checkouts.repository import LISTING as CHECKOUTS
from app.features.checkouts.repository import CheckoutRepository
from app.features.checkouts.schemas import CheckoutsQuery
from app.features.equipment.models import Equipment
from app.features.equipment.repository import LISTING as EQUIPMENT
from app.features.equipment.repository import EquipmentRepository
from app.features.equipment.schemas import EquipmentQuery
from app.features.identity.models import User
from app.features.identity.repository import IdentityRepository
from app.platform.http.cursors import Position
from app.platform.http.pagination import CursorSigner, Listing, ListParams, Window
from app.platform.http.totals import total_of
from app.platform.postgres.base import uuid7

SIGNER = CursorSigner("plans")
NEW_PERSON = {"email": "new@example.com", "full_name": "New", "role": "member", "password_hash": "-"}
NOW = datetime.now(UTC)
MOST_PER_ITEM = 50
Filters = Mapping[str, dict[str, Any]]

EQUIPMENT_FILTERS: Filters = {
    "all": {},
    "category": {"category": "camera"},
    "status": {"status": "available"},
    "rare status": {"status": "maintenance"},
    "location": {"location": "Van 1"},
    "tag": {"tag": ["4k"]},
    "tags": {"tag": ["4k", "insured"]},
    "no such tag": {"tag": ["nope"]},
    "words": {"q": "aurora camera"},
    "prefix": {"q": "cam"},
    "asset tag": {"q": "CAM-0000008"},
    "no such word": {"q": "nope"},
    "since": {"updated_since": NOW - timedelta(days=500)},
    "since yesterday": {"updated_since": NOW - timedelta(days=1)},
    "status, location": {"status": "available", "location": "Van 1"},
    "everything": {"status": "available", "location": "Van 1", "category": "camera", "tag": ["4k"], "q": "aurora"},
}


ONE = "one"  # stands for the id of a row that there is
CHECKOUT_FILTERS: Filters = {
    "all": {},
    "open": {"status": "open"},
    "overdue": {"status": "overdue"},
    "returned": {"status": "returned"},
    "user": {"user_id": ONE},
    "user, open": {"user_id": ONE, "status": "open"},
    "user, returned": {"user_id": ONE, "status": "returned"},
    "item": {"equipment_id": ONE},
    "item, user, returned": {"equipment_id": ONE, "user_id": ONE, "status": "returned"},
    "since": {"updated_since": NOW - timedelta(days=500)},
    "since yesterday": {"updated_since": NOW - timedelta(days=1)},
}


def with_ids(values: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The filter, with the ids of this row."""
    return {name: str(row[name]) if value == ONE else value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Query:
    """`run` sends one statement."""

    method: str
    variant: str
    run: Callable[[AsyncSession], Awaitable[Any]]
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of one organization, from the middle of its lists."""

    organization_id: UUID
    item: Mapping[str, Any]
    checkout: Mapping[str, Any]
    item_ids: Sequence[UUID]
    email: str

    @classmethod
    async def of(cls, session: AsyncSession, organization_id: UUID) -> "Examples":
        """Raises `sqlalchemy.exc.NoResultFound` for an organization without a checkout."""
        own = Checkout.organization_id == organization_id
        middle = select(func.count() / 2).where(own).scalar_subquery()
        checkouts = select(Checkout.__table__).where(own).order_by(Checkout.id)
        checkout = (await session.execute(checkouts.offset(middle).limit(1))).mappings().one()
        items = select(Equipment.__table__).where(Equipment.organization_id == organization_id)
        item = (await session.execute(items.where(Equipment.id == checkout["equipment_id"]))).mappings().one()
        ids = select(Equipment.id).where(Equipment.organization_id == organization_id).order_by(Equipment.id).limit(200)
        email = await session.scalar(select(User.email).where(User.id == checkout["user_id"]))
        assert email is not None
        return cls(organization_id, dict(item), dict(checkout), (await session.scalars(ids)).all(), email)


def queries(examples: Examples) -> Iterator[Query]:
    equipment = partial(EquipmentRepository, organization_id=examples.organization_id)
    checkouts = partial(CheckoutRepository, organization_id=examples.organization_id)
    for query in _pages(equipment, EQUIPMENT, EquipmentQuery, EQUIPMENT_FILTERS, examples.item):
        yield replace(query, method="EquipmentRepository.page")
    for query in _pages(checkouts, CHECKOUTS, CheckoutsQuery, CHECKOUT_FILTERS, examples.checkout):
        yield replace(query, method="CheckoutRepository.page")
    item, checkout, ids = examples.item["id"], examples.checkout["id"], examples.item_ids
    user, email = examples.checkout["user_id"], examples.email
    new_item = {"asset_tag": "a new one", "name": "An item", "category": "camera"}
    new_checkout = {"equipment_id": item, "user_id": user, "due_at": NOW}
    for name, run in {
        "EquipmentRepository.get": lambda session: equipment(session).get(item),
        "EquipmentRepository.lock": lambda session: equipment(session).lock(item),
        "EquipmentRepository.add": lambda session: equipment(session).add(new_item),
        "EquipmentRepository.change": lambda session: equipment(session).change(item, {"name": "Another"}),
        "EquipmentRepository.remove": lambda session: equipment(session).remove(item),
        "EquipmentRepository.figures": lambda session: equipment(session).figures(),
        "CheckoutRepository.get": lambda session: checkouts(session).get(checkout),
        "CheckoutRepository.add": lambda session: checkouts(session).add(new_checkout),
        "CheckoutRepository.close": lambda session: checkouts(session).close(checkout, "good", None),
        "CheckoutRepository.newest_of": lambda session: checkouts(session).newest_of(ids, ("id",), MOST_PER_ITEM),
        "CheckoutRepository.open_of": lambda session: checkouts(session).open_of(ids, ("id",)),
        "CheckoutRepository.figures": lambda session: checkouts(session).figures(),
        "IdentityRepository.user_by_id": lambda session: IdentityRepository(session).user_by_id(user),
        "IdentityRepository.user_by_email": lambda session: IdentityRepository(session).user_by_email(
            email, "192.0.2.1"
        ),
        "IdentityRepository.user": lambda session: IdentityRepository(session).user(examples.organization_id, user),
        "IdentityRepository.hold": lambda session: IdentityRepository(session).hold(user, "a hash"),
        "IdentityRepository.next_epoch": lambda session: IdentityRepository(session).next_epoch(
            examples.organization_id, user
        ),
        "IdentityRepository.add_owner": lambda session: IdentityRepository(session).add_owner(
            "New", **NEW_PERSON, organization_id=uuid7()
        ),
    }.items():
        yield Query(name, "", run)


def window_of(listing: Listing, query: ListParams, scope: Any) -> Window:
    return SIGNER.window(listing, query, scope)


def _pages(
    repository: Callable[..., Any],
    listing: Listing,
    query_type: type[ListParams],
    filters: Filters,
    example: Mapping[str, Any],
) -> Iterator[Query]:
    """The first page and one from the middle: of each filter in the default order, and of all in each order."""
    for name, values in filters.items():
        sorts = listing.sorts if name == "all" else [listing.default_sort.removeprefix("-")]
        for sort in (f"{sign}{key}" for key in sorts for sign in ("", "-")):
            query = query_type(**with_ids(values, example), sort=sort)
            for start in ("first", "deep"):
                page = partial(_page, repository, listing, query, example if start == "deep" else None)
                yield Query("page", f"{name}, sort={sort}, {start}", page, is_list=True)
        yield Query(
            "page", f"{name}, total=exact", partial(_count, repository, query_type(**with_ids(values, example)))
        )


async def _page(
    repository: Callable[..., Any],
    listing: Listing,
    query: ListParams,
    after: Mapping[str, Any] | None,
    session: AsyncSession,
) -> None:
    own = repository(session)
    if after is not None:
        window = window_of(listing, query, own.organization_id)
        key = (query.sort or listing.default_sort).removeprefix("-")
        query = query.model_copy(update={"cursor": window.seal.encode(Position("next", (after[key], after["id"])))})
    await own.page(query, ("id",), window_of(listing, query, own.organization_id))


async def _count(repository: Callable[..., Any], query: ListParams, session: AsyncSession) -> None:
    await total_of(session, partial(repository(session).matching, query), "exact")
