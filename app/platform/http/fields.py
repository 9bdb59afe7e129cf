"""`fields=name,checkouts.due_at` and `expand=checkouts`: which columns a client wants, so that no others are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.platform.http.problems import MAX_NAME, InvalidRequest

MAX_NAMES = 64


class FieldParams(BaseModel):
    """The query parameters of whatever lets its fields be chosen."""

    model_config = ConfigDict(extra="forbid")

    fields: Annotated[
        str | None,
        Field(max_length=1024, description="Only these fields, by commas; `relation.field` goes into a relation."),
    ] = None
    expand: Annotated[str | None, Field(max_length=256, description="Relations to include, by commas.")] = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What to read, in the declared order: equal wishes make equal SQL."""

    own: tuple[str, ...]
    relations: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Fields:
    """The names that may be asked for: those of the resource itself, and those of each relation."""

    own: tuple[str, ...]
    relations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def select(self, params: FieldParams) -> Selection:
        """Raises `InvalidRequest` naming an unknown field or relation.

        Naming a field of a relation includes the relation; naming a relation alone includes it whole.
        """
        wanted = _names(params.fields, "fields")
        expanded = _names(params.expand, "expand")
        own = {name for name in wanted if name in self.own}
        parts: dict[str, set[str]] = {}
        for name in wanted - own:
            relation, _, part = name.partition(".")
            parts.setdefault(self._relation(relation, name, "fields"), set()).add(self._part(relation, part, name))
        for name in expanded:
            parts.setdefault(self._relation(name, name, "expand"), {""})
        return Selection(
            own=tuple(name for name in self.own if name in own) if wanted else self.own,
            relations={name: self._parts(name, parts[name]) for name in self.relations if name in parts},
        )

    def _relation(self, relation: str, name: str, parameter: str) -> str:
        if relation not in self.relations:
            known = self.relations if parameter == "expand" else (*self.own, *self.relations)
            raise _unknown(parameter, name, known)
        return relation

    def _part(self, relation: str, part: str, name: str) -> str:
        if part in self.relations[relation] or name == relation:
            return part
        raise _unknown("fields", name, tuple(f"{relation}.{known}" for known in self.relations[relation]))

    def _parts(self, relation: str, wanted: set[str]) -> tuple[str, ...]:
        whole = "" in wanted
        return tuple(part for part in self.relations[relation] if whole or part in wanted)


def _names(value: str | None, parameter: str) -> set[str]:
    if value is None:
        return set()
    names = value.split(",", MAX_NAMES)
    if len(names) > MAX_NAMES:
        raise InvalidRequest.at(("query", parameter), f"at most {MAX_NAMES} names", f"{parameter}_too_many")
    return {name.strip() for name in names}


def _unknown(parameter: str, name: str, known: Mapping[str, object] | tuple[str, ...]) -> InvalidRequest:
    message = f"unknown name '{name[:MAX_NAME]}'; known are: {', '.join(known) or 'none'}"
    return InvalidRequest.at(("query", parameter), message, f"{parameter}_unknown")
