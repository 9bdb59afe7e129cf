"""The lists of the repositories, by filter and order: for `make explain` and tests/integration/test_plans.py."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.api_keys.repository import LISTING as API_KEYS
from app.features.api_keys.repository import ApiKeyRepository
from app.features.api_keys.schemas import ApiKeysQuery
from app.features.audit.repository import LISTING as AUDIT
from app.features.audit.repository import AuditRepository
from app.features.audit.schemas import AuditQuery
from app.features.checkouts.repository import LISTING as CHECKOUTS
from app.features.checkouts.repository import CheckoutRepository
from app.features.checkouts.schemas import CheckoutsQuery
from app.features.equipment.models import Equipment
from app.features.equipment.repository import LISTING as EQUIPMENT
from app.features.equipment.repository import EquipmentRepository
from app.features.equipment.schemas import EquipmentQuery
from app.features.identity.models import User
from app.features.organizations.invitation_repository import LISTING as INVITATIONS
from app.features.organizations.invitation_repository import InvitationRepository
from app.features.organizations.invitation_schemas import InvitationsQuery
from app.features.organizations.repository import LISTING as MEMBERS
from app.features.organizations.repository import MemberRepository
from app.features.organizations.schemas import MembersQuery
from app.platform.http.cursors import Position
from app.platform.http.pagination import CursorSigner, Listing, ListParams, Window
from app.platform.http.totals import total_of

SIGNER = CursorSigner("plans")
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
API_KEY_FILTERS: Filters = {"all": {}, "user": {"user_id": ONE}}
AUDIT_FILTERS: Filters = {
    "all": {},
    "action": {"action": "equipment.created"},
    "actor": {"actor_id": ONE},
    "target": {"target_id": ONE},
    "since": {"since": NOW - timedelta(days=1)},
    "until": {"until": NOW - timedelta(days=1)},
    "action, since": {"action": "equipment.created", "since": NOW - timedelta(days=1)},
}


def with_ids(values: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The filter, with the ids of this row."""
    return {name: str(row[name]) if value == ONE else value for name, value in values.items()}


class List(NamedTuple):
    """A list of a repository, and the filters that it is asked for with."""

    repository: Callable[..., Any]
    listing: Listing
    query: type[ListParams]
    filters: Filters

    @property
    def method(self) -> str:
        return f"{self.repository.__name__}.page"

    @property
    def model(self) -> Any:
        return cast(Any, self.listing.tiebreak).class_


LISTS = (
    List(EquipmentRepository, EQUIPMENT, EquipmentQuery, EQUIPMENT_FILTERS),
    List(CheckoutRepository, CHECKOUTS, CheckoutsQuery, CHECKOUT_FILTERS),
    List(MemberRepository, MEMBERS, MembersQuery, {"all": {}}),
    List(InvitationRepository, INVITATIONS, InvitationsQuery, {"all": {}}),
    List(ApiKeyRepository, API_KEYS, ApiKeysQuery, API_KEY_FILTERS),
    List(AuditRepository, AUDIT, AuditQuery, AUDIT_FILTERS),
)


@dataclass(frozen=True, slots=True)
class Query:
    """`run` sends statements, of which the one with this number is meant. `counts`: it reads all that is counted."""

    method: str
    variant: str
    run: Callable[[AsyncSession], Awaitable[Any]]
    statement: int = 0
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of one organization, from the middle of its lists: by table, where it has some."""

    organization_id: UUID
    rows: Mapping[str, Mapping[str, Any]]
    item_ids: Sequence[UUID]
    email: str

    @classmethod
    async def of(cls, session: AsyncSession, organization_id: UUID) -> "Examples":
        """Raises `sqlalchemy.exc.NoResultFound` for an organization without a checkout."""
        models = [each.model for each in LISTS]
        found = {model.__tablename__: await middle(session, model, organization_id) for model in models}
        rows = {table: row for table, row in found.items() if row is not None}
        ids = select(Equipment.id).where(Equipment.organization_id == organization_id).order_by(Equipment.id).limit(200)
        email = select(User.email).where(User.id == rows["checkouts"]["user_id"])
        email_found = (await session.execute(email)).scalar_one()
        return cls(organization_id, rows, (await session.scalars(ids)).all(), email_found)


async def middle(session: AsyncSession, model: Any, organization_id: UUID) -> Mapping[str, Any] | None:
    own = model.organization_id == organization_id
    half = select(func.count() / 2).where(own).scalar_subquery()
    rows = await session.execute(select(model.__table__).where(own).order_by(model.id).offset(half).limit(1))
    return rows.mappings().one_or_none()


def pages(examples: Examples) -> Iterator[Query]:
    """Of all lists of which the organization has something."""
    for each in LISTS:
        if (row := examples.rows.get(each.model.__tablename__)) is not None:
            yield from _pages(each, examples.organization_id, row)


def window_of(listing: Listing, query: ListParams, scope: Any) -> Window:
    return SIGNER.window(listing, query, scope)


def _pages(each: List, organization_id: UUID, example: Mapping[str, Any]) -> Iterator[Query]:
    """The first page and one from the middle: of each filter in the default order, and of all in each order."""
    listing, repository = each.listing, partial(each.repository, organization_id=organization_id)
    for name, values in each.filters.items():
        wanted = with_ids(values, example)
        sorts = listing.sorts if name == "all" else [listing.default_sort.removeprefix("-")]
        for sort in (f"{sign}{key}" for key in sorts for sign in ("", "-")):
            query = each.query(**wanted, sort=sort)
            for start in ("first", "deep"):
                page = partial(_page, repository, listing, query, example if start == "deep" else None)
                yield Query(each.method, f"{name}, sort={sort}, {start}", page)
        count = partial(_count, repository, each.query(**wanted))
        yield Query(each.method, f"{name}, total=exact", count, counts=True)


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
