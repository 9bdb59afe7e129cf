"""The rules of equipment."""

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from app.features.equipment.models import Equipment
from app.features.equipment.repository import EquipmentRepository, Row
from app.features.equipment.schemas import EquipmentIn, EquipmentPatch, Status
from app.platform.audit import record
from app.platform.cache import tag
from app.platform.errors import Conflict, NotFound
from app.platform.postgres import ReadSession, WriteSession
from app.platform.security.caller import Caller


class AssetTagTaken(Conflict):
    slug = "asset-tag-taken"
    title = "Another item has this asset tag"


class CheckedOut(Conflict):
    slug = "checked-out"
    title = "The item is checked out"


class AlreadyCheckedOut(Conflict):
    slug = "already-checked-out"
    title = "The item is checked out already"


class NotAvailable(Conflict):
    slug = "not-available"
    title = "The item is in maintenance or retired"


# Raises `VersionConflict` unless the caller has seen this version.
CheckVersion = Callable[[int], None]


async def create(session: WriteSession, caller: Caller, body: EquipmentIn) -> Row:
    """Raises `AssetTagTaken`."""
    try:
        item = await EquipmentRepository(session, caller.organization_id).add(body.model_dump())
    except IntegrityError:
        raise AssetTagTaken(f"Asset tag {body.asset_tag!r} is in use.") from None
    record(session, caller, "equipment.created", item["id"])
    _touch(session, caller)
    return item


async def change(
    session: WriteSession, caller: Caller, equipment_id: UUID, body: EquipmentPatch, check: CheckVersion
) -> Row:
    """Raises `NotFound`, `VersionConflict`, `AssetTagTaken`, and `CheckedOut` for a new status while it's out."""
    repository = EquipmentRepository(session, caller.organization_id)
    values = body.model_dump(exclude_unset=True)
    await _lock(repository, equipment_id, check, in_house="status" in values)
    try:
        item = await repository.change(equipment_id, values)
    except IntegrityError:
        raise AssetTagTaken(f"Asset tag {body.asset_tag!r} is in use.") from None
    assert item is not None  # locked above
    record(session, caller, "equipment.changed", equipment_id, fields=sorted(values), version=item["version"])
    _touch(session, caller)
    return item


async def remove(session: WriteSession, caller: Caller, equipment_id: UUID, check: CheckVersion) -> None:
    """Remove an item and its history. Raises `NotFound`, `VersionConflict`, and `CheckedOut` while it's out."""
    repository = EquipmentRepository(session, caller.organization_id)
    await _lock(repository, equipment_id, check, in_house=True)
    await repository.remove(equipment_id)
    record(session, caller, "equipment.removed", equipment_id)
    _touch(session, caller)


async def get(session: ReadSession | WriteSession, caller: Caller, equipment_id: UUID, fields: Sequence[str]) -> Row:
    """Raises `NotFound`."""
    item = await EquipmentRepository(session, caller.organization_id).get(equipment_id, fields)
    if item is None:
        raise NotFound(f"There is no equipment {equipment_id}.")
    return item


async def figures(session: ReadSession, caller: Caller) -> Sequence[Row]:
    """Number and value of the items, by category and status."""
    return await EquipmentRepository(session, caller.organization_id).figures()


async def check_out(session: WriteSession, caller: Caller, equipment_id: UUID) -> None:
    """Mark an item as out. Raises `NotFound`, `AlreadyCheckedOut`, `NotAvailable`."""
    repository = EquipmentRepository(session, caller.organization_id)
    available = Equipment.status == Status.AVAILABLE
    if await repository.change(equipment_id, {"status": Status.CHECKED_OUT}, available) is None:
        await _refuse_check_out(repository, equipment_id)
    _touch(session, caller)


async def check_in(session: WriteSession, caller: Caller, equipment_id: UUID) -> None:
    """Mark an item as available again."""
    await EquipmentRepository(session, caller.organization_id).change(equipment_id, {"status": Status.AVAILABLE})
    _touch(session, caller)


async def _refuse_check_out(repository: EquipmentRepository, equipment_id: UUID) -> None:
    item = await repository.get(equipment_id, ("status",))
    if item is None:
        raise NotFound(f"There is no equipment {equipment_id}.")
    raise AlreadyCheckedOut() if item["status"] == Status.CHECKED_OUT else NotAvailable()


async def _lock(repository: EquipmentRepository, equipment_id: UUID, check: CheckVersion, in_house: bool) -> None:
    """Keep others from changing the item until the transaction ends, after a look at what they left."""
    item = await repository.lock(equipment_id)
    if item is None:
        raise NotFound(f"There is no equipment {equipment_id}.")
    check(item["version"])
    if in_house and item["status"] == Status.CHECKED_OUT:
        raise CheckedOut("Return it first.")


def _touch(session: WriteSession, caller: Caller) -> None:
    session.touch(tag(caller.organization_id, "equipment"))
