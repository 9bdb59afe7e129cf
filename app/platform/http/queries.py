"""Query parameters of operations that have none."""

from pydantic import BaseModel, ConfigDict


class NoQuery(BaseModel):
    """Refuses whatever comes: else each spelling of `?x=` would be another question to the cache."""

    model_config = ConfigDict(extra="forbid")
