"""What goes over the wire about checkouts."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.platform.http.fields import Fields
from app.platform.http.pagination import ListParams
from app.platform.http.types import Line, Text, UtcTime

Status = Literal["open", "overdue", "returned"]
Note = Annotated[Text, Field(max_length=2_000)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CheckoutIn(Body):
    due_at: Annotated[UtcTime, Field(description="May lie in the past, for what is entered after the fact")]
    note: Note = ""


class ReturnIn(Body):
    condition: Annotated[Line, Field(min_length=1, max_length=100)] | None = None
    note: Note | None = None


class CheckoutOut(TypedDict, total=False):
    """A checkout, or as much of it as `fields` asks for."""

    id: UUID
    equipment_id: UUID
    user_id: UUID
    status: Annotated[Status, Field(description="`overdue` is open and past its `due_at`")]
    checked_out_at: UtcTime
    due_at: UtcTime
    returned_at: UtcTime | None
    note: str
    condition: Annotated[str | None, Field(description="in which it came back")]
    return_note: str | None
    updated_at: UtcTime


OWN_FIELDS = tuple(CheckoutOut.__annotations__)
FIELDS = Fields(own=OWN_FIELDS)


def user_or_me(value: str) -> str:
    return value if value == "me" else str(UUID(value))


class EquipmentCheckoutsQuery(ListParams):
    status: Annotated[Status | None, Field(description="`open` includes those that are overdue")] = None
    user_id: Annotated[str, AfterValidator(user_or_me), Field(description="an id, or `me`")] | None = None


class CheckoutsQuery(EquipmentCheckoutsQuery):
    equipment_id: UUID | None = None
    updated_since: UtcTime | None = None
