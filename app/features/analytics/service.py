"""Figures over the features, asked of their services."""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

from app.features.analytics.schemas import EquipmentFigures
from app.features.checkouts import service as checkouts
from app.features.equipment import service as equipment
from app.platform.postgres import ReadSession
from app.platform.security.caller import Caller


async def equipment_figures(session: ReadSession, caller: Caller) -> EquipmentFigures:
    groups = await equipment.figures(session, caller)
    lent = await checkouts.figures(session, caller)
    by_status: Counter[str] = Counter()
    by_category: Counter[str] = Counter()
    for group in groups:
        by_status[group["status"]] += group["items"]
        by_category[group["category"]] += group["items"]
    return EquipmentFigures(
        items=by_status.total(),
        by_status=by_status,
        by_category=by_category,
        value=sum((group["value"] for group in groups), start=Decimal(0)),
        open_checkouts=lent["open"],
        overdue_checkouts=lent["overdue"],
        as_of=datetime.now(UTC),
    )
