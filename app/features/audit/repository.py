"""Every query about the audit log."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.audit.schemas import AuditQuery
from app.platform.audit.tables import AuditEntry
from app.platform.http.pagination import Listing, Slice, Window
from app.platform.http.totals import total_of
from app.platform.postgres import repository

LISTING = Listing(
    name="audit",
    sorts={"occurred_at": AuditEntry.occurred_at},
    default_sort="-occurred_at",
    tiebreak=AuditEntry.id,
)


def columns(fields: Collection[str]) -> list[Any]:
    return [getattr(AuditEntry, name) for name in fields]


@repository
class AuditRepository:
    """Sees one organization only."""

    def __init__(self, session: AsyncSession, organization_id: UUID) -> None:
        self.session = session
        self.organization_id = organization_id

    def matching(self, query: AuditQuery, fields: Sequence[str] = ("id",)) -> Select[Any]:
        """The entries that the filters let through, unordered."""
        own = AuditEntry.organization_id == self.organization_id
        return select(*columns(fields)).where(own, *self._filters(query))

    async def page(self, query: AuditQuery, fields: Sequence[str], window: Window) -> Slice:
        rows = await self.session.execute(window.apply(self.matching(query, fields)))
        total = await total_of(self.session, partial(self.matching, query), query.total)
        return window.slice(rows.mappings().all(), total)

    def _filters(self, query: AuditQuery) -> list[ColumnElement[bool]]:
        named = {"action": query.action, "actor_id": query.actor_id, "target_id": query.target_id}
        found = [getattr(AuditEntry, name) == value for name, value in named.items() if value is not None]
        if query.since is not None:
            found.append(AuditEntry.occurred_at >= query.since)
        if query.until is not None:
            found.append(AuditEntry.occurred_at < query.until)
        return found
