"""The relations of equipment: each is one query for a whole page, however long the page is."""

from collections.abc import Sequence
from typing import Any

from app.features.checkouts import service as checkouts
from app.features.equipment.repository import Row
from app.platform.http.fields import Selection
from app.platform.postgres import ReadSession
from app.platform.security.caller import Caller


def needed(selection: Selection) -> tuple[str, ...]:
    """The columns to read for a selection: relations are found by the item's id."""
    if selection.relations and "id" not in selection.own:
        return ("id", *selection.own)
    return selection.own


async def expand(
    session: ReadSession, caller: Caller, rows: Sequence[Row], selection: Selection
) -> list[dict[str, Any]]:
    """The rows with just the fields and relations that were asked for."""
    related: dict[str, dict[Any, Any]] = {}
    for relation, fields in selection.relations.items():
        ids = [row["id"] for row in rows]
        if relation == "checkouts":
            related[relation] = await checkouts.newest_of(session, caller, ids, fields)
        else:
            related[relation] = await checkouts.current_of(session, caller, ids, fields)
    return [_shape(row, selection, related) for row in rows]


def _shape(row: Row, selection: Selection, related: dict[str, dict[Any, Any]]) -> dict[str, Any]:
    shown = {name: row[name] for name in selection.own}
    for relation, by_item in related.items():
        shown[relation] = by_item.get(row["id"], [] if relation == "checkouts" else None)
    return shown
