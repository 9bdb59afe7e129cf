"""What goes over the wire about the figures."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, Field

from app.platform.http.types import UtcTime


class EquipmentFigures(BaseModel):
    items: int
    by_status: dict[str, int]
    by_category: dict[str, int]
    value: Annotated[Decimal, Field(description="sum of the purchase prices, a decimal in a string")]
    open_checkouts: int
    overdue_checkouts: int
    as_of: UtcTime
