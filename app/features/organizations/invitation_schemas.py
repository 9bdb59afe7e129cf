"""What goes over the wire about invitations."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.features.identity.schemas import Email, MailedToken, NewPassword
from app.platform.http.fields import Fields
from app.platform.http.pagination import ListParams
from app.platform.http.types import Line, UtcTime
from app.platform.security.caller import Role


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class InvitationIn(Body):
    email: Email
    role: Role = Role.MEMBER


class Acceptance(Body):
    token: MailedToken
    full_name: Annotated[Line, Field(min_length=1, max_length=200)]
    password: NewPassword


class InvitationOut(TypedDict, total=False):
    """An invitation, or as much of it as `fields` asks for; its token is in the mail alone."""

    id: UUID
    email: str
    role: Annotated[str, Field(json_schema_extra={"enum": list(Role)})]
    invited_by: UUID
    created_at: UtcTime
    expires_at: UtcTime
    accepted_at: UtcTime | None
    revoked_at: UtcTime | None


OWN_FIELDS = tuple(InvitationOut.__annotations__)
FIELDS = Fields(own=OWN_FIELDS)


class InvitationsQuery(ListParams):
    """Nothing to filter by."""
