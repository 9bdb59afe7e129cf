"""What goes over the wire about the audit log."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field
from typing_extensions import TypedDict

from app.platform.http.fields import Fields
from app.platform.http.pagination import ListParams
from app.platform.http.types import Line, UtcTime


class AuditEntryOut(TypedDict, total=False):
    """An entry, or as much of it as `fields` asks for."""

    id: UUID
    occurred_at: UtcTime
    actor_id: Annotated[UUID | None, Field(description="the user; null where it was the service itself")]
    api_key_id: Annotated[UUID | None, Field(description="the key that spoke for the user, if one did")]
    action: Annotated[str, Field(examples=["equipment.created"])]
    target_id: UUID | None
    details: dict[str, Any]
    address: Annotated[str, Field(description="where the request came from")]
    request_id: Annotated[str, Field(description="X-Request-ID of the request")]


OWN_FIELDS = tuple(AuditEntryOut.__annotations__)
FIELDS = Fields(own=OWN_FIELDS)


class AuditQuery(ListParams):
    action: Annotated[Line, Field(min_length=1, max_length=64)] | None = None
    actor_id: UUID | None = None
    target_id: UUID | None = None
    since: UtcTime | None = None
    until: Annotated[UtcTime | None, Field(description="exclusive")] = None
