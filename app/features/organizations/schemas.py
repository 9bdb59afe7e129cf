"""What goes over the wire about the members of an organization."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.platform.http.fields import Fields
from app.platform.http.pagination import ListParams
from app.platform.http.types import UtcTime
from app.platform.security.caller import Role


class MemberPatch(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    role: Role = Role.MEMBER
    disabled: Annotated[bool, Field(description="who is disabled can't log in, and what they hold is refused")] = False


class MemberOut(TypedDict, total=False):
    """A member, or as much of one as `fields` asks for."""

    id: UUID
    email: str
    full_name: str
    role: Annotated[str, Field(json_schema_extra={"enum": list(Role)})]
    created_at: UtcTime
    disabled_at: UtcTime | None


OWN_FIELDS = tuple(MemberOut.__annotations__)
FIELDS = Fields(own=OWN_FIELDS)


class MembersQuery(ListParams):
    """Nothing to filter by: an organization's people are few."""
