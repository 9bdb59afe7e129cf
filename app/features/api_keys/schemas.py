"""What goes over the wire about API keys."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.platform.http.fields import Fields
from app.platform.http.pagination import ListParams
from app.platform.http.types import Line, UtcTime

DEFAULT_LIFE = timedelta(days=90)
LONGEST_LIFE = timedelta(days=366)
DEFAULT_OVERLAP_SECONDS = 86_400
LONGEST_OVERLAP_SECONDS = 7 * 86_400

Name = Annotated[Line, Field(min_length=1, max_length=100)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ApiKeyIn(Body):
    name: Name
    scopes: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]],
        Field(min_length=1, max_length=20, description="of your own; those that manage people and keys can't be given"),
    ]
    expires_at: Annotated[UtcTime | None, Field(description="in 90 days by default, in 366 at the latest")] = None


class RotationIn(Body):
    overlap_seconds: Annotated[
        int, Field(ge=0, le=LONGEST_OVERLAP_SECONDS, description="for which the old key stays good")
    ] = DEFAULT_OVERLAP_SECONDS


class ApiKeyOut(TypedDict, total=False):
    """A key, or as much of it as `fields` asks for; never the key itself."""

    id: UUID
    user_id: Annotated[UUID, Field(description="whom it speaks for")]
    name: str
    prefix: Annotated[str, Field(description="how the key begins")]
    scopes: list[str]
    created_at: UtcTime
    expires_at: UtcTime
    last_used_at: Annotated[UtcTime | None, Field(description="to the minute")]
    revoked_at: UtcTime | None


class NewApiKeyOut(ApiKeyOut, total=False):
    key: Annotated[str, Field(description="told this once")]


OWN_FIELDS = tuple(ApiKeyOut.__annotations__)
FIELDS = Fields(own=OWN_FIELDS)


class ApiKeysQuery(ListParams):
    user_id: UUID | None = None
