"""Every query about API keys."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.api_keys.models import ApiKey
from app.features.api_keys.schemas import OWN_FIELDS, ApiKeysQuery
from app.platform.http.pagination import Listing, Slice, Window
from app.platform.http.totals import total_of

LISTING = Listing(
    name="api-keys",
    sorts={"created_at": ApiKey.created_at, "name": ApiKey.name},
    default_sort="-created_at",
    tiebreak=ApiKey.id,
)
USE_PRECISION = timedelta(minutes=1)
IS_LIVE = ApiKey.revoked_at.is_(None) & (ApiKey.expires_at > func.now())
Row = dict[str, Any]


def columns(fields: Collection[str]) -> list[Any]:
    return [getattr(ApiKey, name) for name in fields]


class ApiKeyRepository:
    """Sees one organization only."""

    def __init__(self, session: AsyncSession, organization_id: UUID) -> None:
        self.session = session
        self.organization_id = organization_id

    def matching(self, query: ApiKeysQuery, fields: Sequence[str] = ("id",)) -> Select[Any]:
        """The keys that the filters let through, unordered."""
        statement = select(*columns(fields)).where(self._own)
        return statement if query.user_id is None else statement.where(ApiKey.user_id == query.user_id)

    async def page(self, query: ApiKeysQuery, fields: Sequence[str], window: Window) -> Slice:
        rows = await self.session.execute(window.apply(self.matching(query, fields)))
        return window.slice(
            rows.mappings().all(), await total_of(self.session, lambda: self.matching(query), query.total)
        )

    async def lock(self, key_id: UUID) -> Row | None:
        """A live key that no one else can change until the transaction ends."""
        statement = select(*columns((*OWN_FIELDS, "slot"))).where(self._own, ApiKey.id == key_id, IS_LIVE)
        return await self._one(statement.with_for_update())

    async def live_count(self) -> int:
        return int(await self.session.scalar(select(func.count()).where(self._own, IS_LIVE)) or 0)

    async def free_slots_of_expired(self, name: str) -> None:
        expired = update(ApiKey).where(
            self._own, ApiKey.name == name, ApiKey.revoked_at.is_(None), ApiKey.expires_at <= func.now()
        )
        await self.session.execute(expired.values(revoked_at=ApiKey.expires_at))

    async def add(self, values: Mapping[str, Any]) -> Row:
        """Raises `sqlalchemy.exc.IntegrityError` when the slot is taken."""
        statement = insert(ApiKey).values(organization_id=self.organization_id, **values)
        row = await self._one(statement.returning(*columns(OWN_FIELDS)))
        assert row is not None
        return row

    async def change(self, key_id: UUID, **values: Any) -> None:
        await self.session.execute(update(ApiKey).where(self._own, ApiKey.id == key_id).values(**values))

    @property
    def _own(self) -> ColumnElement[bool]:
        return ApiKey.organization_id == self.organization_id

    async def _one(self, statement: Any) -> Row | None:
        row = (await self.session.execute(statement)).mappings().one_or_none()
        return None if row is None else dict(row)


async def find(session: AsyncSession, digest: bytes) -> Row | None:
    """The live key with this digest, whichever organization it is of."""
    found = ("organization_id", "id", "user_id", "scopes", "expires_at")
    statement = select(*columns(found)).where(ApiKey.digest == digest, IS_LIVE)
    row = (await session.execute(statement)).mappings().one_or_none()
    return None if row is None else dict(row)


async def note_use(session: AsyncSession, keys: Collection[tuple[UUID, UUID]]) -> None:
    """Each with its organization: they were used just now. Written once a minute at most, however often they are."""
    is_old = ApiKey.last_used_at.is_(None) | (ApiKey.last_used_at < func.now() - USE_PRECISION)
    statement = update(ApiKey).where(tuple_(ApiKey.organization_id, ApiKey.id).in_(keys), is_old)
    await session.execute(statement.values(last_used_at=func.now()))
