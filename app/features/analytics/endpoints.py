"""Figures over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from app.dependencies import ReadSession, caller_with
from app.features.analytics import service
from app.features.analytics.schemas import EquipmentFigures
from app.platform.cache import cached
from app.platform.http.conditional import json_response
from app.platform.http.problems import problem_responses
from app.platform.http.queries import NoQuery
from app.platform.limits import limiter
from app.platform.resilience.overload import Criticality, criticality
from app.platform.security.caller import Caller

router = APIRouter(prefix="/analytics", tags=["analytics"])
Reader = Annotated[Caller, caller_with("analytics:read")]
FIGURES = TypeAdapter(EquipmentFigures)


@router.get("/equipment", response_model=EquipmentFigures, responses=problem_responses())
@limiter.limit("10/second;300/minute")
@limiter.concurrent(4)
@criticality(Criticality.SHEDDABLE)
@cached(ttl_seconds=30, tags=("equipment", "checkouts"))
async def equipment_figures(
    request: Request, query: Annotated[NoQuery, Query()], caller: Reader, session: ReadSession
) -> Response:
    """How many items there are, by status and category, what they cost, and how many are out."""
    return json_response(request, FIGURES, await service.equipment_figures(session, caller))
