"""What goes over the wire about equipment."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.platform.http.fields import Fields
from app.platform.http.pagination import ListParams
from app.platform.http.types import JsonObject, Line, Money, Tag, Tags, Text, UtcTime

OWN_FIELDS = (
    "id",
    "asset_tag",
    "name",
    "category",
    "status",
    "location",
    "tags",
    "description",
    "attributes",
    "purchase_price",
    "version",
    "created_at",
    "updated_at",
)


class Status(StrEnum):
    AVAILABLE = "available"
    CHECKED_OUT = "checked_out"
    MAINTENANCE = "maintenance"
    RETIRED = "retired"


# Checking out and returning move an item in and out of `checked_out`; people choose among the rest.
ChosenStatus = Literal[Status.AVAILABLE, Status.MAINTENANCE, Status.RETIRED]

AssetTag = Annotated[Line, Field(min_length=1, max_length=64)]
Name = Annotated[Line, Field(min_length=1, max_length=200)]
Category = Annotated[Line, Field(min_length=1, max_length=100)]
Location = Annotated[Line, Field(max_length=200)]

Description = Annotated[Text, Field(max_length=10_000)]
Attributes = Annotated[JsonObject, Field(description="Whatever else there is to say, as a JSON object")]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EquipmentIn(Body):
    asset_tag: AssetTag
    name: Name
    category: Category
    status: ChosenStatus = Status.AVAILABLE
    location: Location = ""
    tags: Tags = []
    description: Description = ""
    attributes: Attributes = {}
    purchase_price: Money | None = None


class EquipmentPatch(Body):
    """What is left out stays as it is; `null` clears the price and is refused elsewhere."""

    asset_tag: AssetTag = ""
    name: Name = ""
    category: Category = ""
    status: ChosenStatus = Status.AVAILABLE
    location: Location = ""
    tags: Tags = []
    description: Description = ""
    attributes: Attributes = {}
    purchase_price: Money | None = None


class CheckoutBrief(TypedDict, total=False):
    """A checkout, seen from its item."""

    id: UUID
    user_id: UUID
    status: Literal["open", "overdue", "returned"]
    checked_out_at: UtcTime
    due_at: UtcTime
    returned_at: UtcTime | None
    note: str
    condition: str | None
    return_note: str | None


class EquipmentOut(TypedDict, total=False):
    """An item, or as much of it as `fields` asks for."""

    id: UUID
    asset_tag: str
    name: str
    category: str
    status: Annotated[str, Field(json_schema_extra={"enum": list(Status)})]
    location: str
    tags: list[str]
    description: str
    attributes: dict[str, Any]
    purchase_price: Annotated[Decimal, Field(description="a decimal in a string")] | None
    version: int
    created_at: UtcTime
    updated_at: UtcTime
    checkouts: Annotated[list[CheckoutBrief], Field(description="the newest 50, newest first")]
    current_checkout: CheckoutBrief | None


CHECKOUT_FIELDS = tuple(CheckoutBrief.__annotations__)
FIELDS = Fields(own=OWN_FIELDS, relations={"checkouts": CHECKOUT_FIELDS, "current_checkout": CHECKOUT_FIELDS})


class EquipmentQuery(ListParams):
    category: Category | None = None
    status: Status | None = None
    location: Location | None = None
    tag: Annotated[list[Tag], Field(max_length=10, description="Items that have all of these")] = []
    q: Annotated[Line, Field(min_length=1, max_length=200, description="Words, or how they begin")] | None = None
    updated_since: UtcTime | None = None
