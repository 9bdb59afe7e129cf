"""The rules of lending: an item is out at most once, and what is out comes back once."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from app.features.checkouts.repository import CheckoutRepository, Row
from app.features.checkouts.schemas import CheckoutIn, ReturnIn
from app.features.equipment import service as equipment
from app.platform.audit import record
from app.platform.cache import tag
from app.platform.errors import Conflict, NotFound, Unauthenticated
from app.platform.postgres import ReadSession, WriteSession
from app.platform.postgres.errors import sqlstate
from app.platform.security.caller import Caller

FOREIGN_KEY_VIOLATION = "23503"
MOST_PER_ITEM = 50  # checkouts shown inside an item; all of them are at /equipment/{id}/checkouts


class AlreadyReturned(Conflict):
    slug = "already-returned"
    title = "The checkout was returned already"


async def check_out(session: WriteSession, caller: Caller, equipment_id: UUID, body: CheckoutIn) -> Row:
    """Raises `NotFound`, `equipment.AlreadyCheckedOut`, `equipment.NotAvailable`, `Unauthenticated`."""
    await equipment.check_out(session, caller, equipment_id)
    values = {"equipment_id": equipment_id, "user_id": caller.user_id, "due_at": body.due_at, "note": body.note}
    try:
        checkout = await CheckoutRepository(session, caller.organization_id).add(values)
    except IntegrityError as error:
        if sqlstate(error) == FOREIGN_KEY_VIOLATION:
            raise Unauthenticated("The account of this token is gone.") from None
        # The status said available and an open checkout stands against it: the constraint has the last word.
        raise equipment.AlreadyCheckedOut() from None
    record(session, caller, "checkout.created", checkout["id"], equipment_id=str(equipment_id))
    session.touch(tag(caller.organization_id, "checkouts"))
    return checkout


async def give_back(session: WriteSession, caller: Caller, checkout_id: UUID, body: ReturnIn) -> Row:
    """Raises `NotFound`, `AlreadyReturned`."""
    repository = CheckoutRepository(session, caller.organization_id)
    checkout = await repository.close(checkout_id, body.condition, body.note)
    if checkout is None:
        await get(session, caller, checkout_id, ("id",))
        raise AlreadyReturned()
    await equipment.check_in(session, caller, checkout["equipment_id"])
    record(session, caller, "checkout.returned", checkout_id, equipment_id=str(checkout["equipment_id"]))
    session.touch(tag(caller.organization_id, "checkouts"))
    return checkout


async def get(session: ReadSession | WriteSession, caller: Caller, checkout_id: UUID, fields: Sequence[str]) -> Row:
    """Raises `NotFound`."""
    checkout = await CheckoutRepository(session, caller.organization_id).get(checkout_id, fields)
    if checkout is None:
        raise NotFound(f"There is no checkout {checkout_id}.")
    return checkout


async def newest_of(
    session: ReadSession, caller: Caller, equipment_ids: Sequence[UUID], fields: Sequence[str]
) -> dict[UUID, list[dict[str, Any]]]:
    """The newest checkouts of each of these items, by item, newest first."""
    by_item: dict[UUID, list[dict[str, Any]]] = {}
    repository = CheckoutRepository(session, caller.organization_id)
    for row in await repository.newest_of(equipment_ids, fields, MOST_PER_ITEM):
        by_item.setdefault(row["item"], []).append({name: row[name] for name in fields})
    return by_item


async def current_of(
    session: ReadSession, caller: Caller, equipment_ids: Sequence[UUID], fields: Sequence[str]
) -> dict[UUID, dict[str, Any]]:
    """The open checkout of each of these items that is out, by item."""
    rows = await CheckoutRepository(session, caller.organization_id).open_of(equipment_ids, fields)
    return {row["item"]: {name: row[name] for name in fields} for row in rows}


async def figures(session: ReadSession, caller: Caller) -> Row:
    """How many are open, and how many of those overdue."""
    return await CheckoutRepository(session, caller.organization_id).figures()
