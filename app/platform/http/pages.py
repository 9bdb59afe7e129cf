"""The body of a list, as the OpenAPI document tells it."""

from typing import Annotated, Generic, NotRequired, TypeVar

from pydantic import Field
from typing_extensions import TypedDict

Item = TypeVar("Item")


class Page(TypedDict, Generic[Item]):
    items: list[Item]
    next_cursor: str | None
    prev_cursor: str | None
    total: NotRequired[Annotated[int, Field(description="where `total` asked for it")]]
