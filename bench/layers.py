"""What each layer over asyncpg costs, in one process: the same rows, read by way of each."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from statistics import median
from time import perf_counter, process_time
from typing import Any
from uuid import UUID

import asyncpg
import uvloop
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import defer

from app.features.equipment.models import Equipment
from app.features.equipment.repository import LISTING, EquipmentRepository, columns
from app.features.equipment.schemas import OWN_FIELDS, EquipmentQuery
from app.platform.http.pagination import CursorSigner
from app.platform.postgres.database import Database
from app.platform.postgres.prepared import Prepared, named
from app.resources import database_options
from app.settings import Settings
from bench.report import Table, spread

ROUNDS = 15
CALLS = 100
ITEMS = 20
OWNER = "demo@example.com"
SOME_ITEM = """
SELECT organization_id, equipment.id FROM equipment JOIN users USING (organization_id) WHERE email = $1 LIMIT 1
"""
SQL = f"SELECT {', '.join(OWN_FIELDS)} FROM equipment WHERE organization_id = $1"
BY_KEY, LIST = f"{SQL} AND id = $2", f"{SQL} ORDER BY name, id LIMIT $2"
RAW, ENTITIES, COLUMNS = "asyncpg", "ORM entities, plain session", "columns, plain session"
OURS, REPOSITORY = "prepared columns, ReadSession", "repository on ReadSession"
GOAL = 1.5
Read = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Times:
    """Microseconds per read, in each round: on the clock, and of this process's CPU."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sources:
    """The same database behind each layer, and a row of it."""

    pool: Any
    engine: AsyncEngine
    database: Database
    organization_id: UUID
    equipment_id: UUID


def layers(settings: Settings, core: str) -> Table:
    """Runs on `core`, as a worker that is measured does; Postgres is on the others."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(core)})
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            kinds = runner.run(measure(settings))
    finally:
        os.sched_setaffinity(0, before)
    return Table(
        title=f"Reads by layer, one at a time in one process: {ROUNDS} rounds of {CALLS}",
        columns=("", "µs", "CPU µs", "× asyncpg", "goal"),
        rows=[_row(kind, layer, times) for kind, times in kinds.items() for layer in times],
        figures={kind: {layer: asdict(of) for layer, of in times.items()} for kind, times in kinds.items()},
    )


async def measure(settings: Settings) -> dict[str, dict[str, Times]]:
    async with _sources(settings) as sources:
        kinds = {"by key": _by_key(sources), f"list of {ITEMS}": _list(sources)}
        return {kind: await _interleaved(reads) for kind, reads in kinds.items()}


async def _interleaved(reads: dict[str, Read]) -> dict[str, Times]:
    times = {layer: Times() for layer in reads}
    for number in range(1 + ROUNDS):
        for layer, read in reads.items():
            wall, cpu = await _timed(read)
            if number:  # the first one fills caches and opens connections
                times[layer].wall.append(wall)
                times[layer].cpu.append(cpu)
    return times


async def _timed(read: Read) -> tuple[float, float]:
    wall, cpu = perf_counter(), process_time()
    for _ in range(CALLS):
        await read()
    return (perf_counter() - wall) / CALLS * 1e6, (process_time() - cpu) / CALLS * 1e6


def _by_key(sources: Sources) -> dict[str, Read]:
    organization_id, equipment_id = sources.organization_id, sources.equipment_id
    conditions = (Equipment.organization_id == organization_id, Equipment.id == equipment_id)

    async def raw() -> object:
        return dict(await sources.pool.fetchrow(BY_KEY, organization_id, equipment_id))

    async def entity() -> object:
        async with AsyncSession(sources.engine) as session:
            return (await session.execute(_entities().where(*conditions))).scalar_one()

    async def plain() -> object:
        async with AsyncSession(sources.engine) as session:
            return dict((await session.execute(_columns().where(*conditions))).mappings().one())

    async def repository() -> object:
        async with sources.database.read() as session:
            return await EquipmentRepository(session, organization_id).get(equipment_id)

    return {RAW: raw, ENTITIES: entity, COLUMNS: plain, REPOSITORY: repository}


def _list(sources: Sources) -> dict[str, Read]:
    organization_id, query = sources.organization_id, EquipmentQuery(limit=ITEMS)
    cursors = CursorSigner("of no matter here")

    def whole(statement: Any) -> Any:
        mine = statement.where(Equipment.organization_id == organization_id)
        return mine.order_by(Equipment.name, Equipment.id).limit(ITEMS + 1)

    async def raw() -> object:
        return [dict(row) for row in await sources.pool.fetch(LIST, organization_id, ITEMS + 1)]

    async def entities() -> object:
        async with AsyncSession(sources.engine) as session:
            return (await session.execute(whole(_entities()))).scalars().all()

    async def plain() -> object:
        async with AsyncSession(sources.engine) as session:
            return [dict(row) for row in (await session.execute(whole(_columns()))).mappings()]

    own = Equipment.organization_id == named("organization", None, Equipment.organization_id)
    ordered = _columns().where(own).order_by(Equipment.name, Equipment.id)
    prepared = Prepared(ordered.limit(named("most", None, Equipment.version)))

    async def ours() -> object:
        async with sources.database.read() as session:
            return await session.fetch(prepared, {"organization": organization_id, "most": ITEMS + 1})

    async def repository() -> object:
        window = cursors.window(LISTING, query, scope=organization_id)
        async with sources.database.read() as session:
            return await EquipmentRepository(session, organization_id).page(query, OWN_FIELDS, window)

    return {RAW: raw, ENTITIES: entities, COLUMNS: plain, OURS: ours, REPOSITORY: repository}


def _entities() -> Any:
    # Not shown, so not read; the other ways don't read it either.
    return select(Equipment).options(defer(Equipment.search))


def _columns() -> Any:
    return select(*columns(OWN_FIELDS))


@asynccontextmanager
async def _sources(settings: Settings) -> AsyncIterator[Sources]:
    url = settings.database_url.get_secret_value()
    engine, database = create_async_engine(url), Database(database_options(settings))
    await database.start()
    try:
        async with asyncpg.create_pool(url.replace("+asyncpg", ""), init=_read_json) as pool:
            [item] = await pool.fetch(SOME_ITEM, OWNER)
            yield Sources(pool, engine, database, item["organization_id"], item["id"])
    finally:
        await database.aclose()
        await engine.dispose()


async def _read_json(connection: Any) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


def _row(kind: str, layer: str, times: dict[str, Times]) -> tuple[str, ...]:
    wall = [own / raw for own, raw in zip(times[layer].wall, times[RAW].wall, strict=True)]
    goal = f"at most {GOAL}" if layer == OURS else ""
    return f"{kind}: {layer}", f"{median(times[layer].wall):.0f}", f"{median(times[layer].cpu):.0f}", spread(wall), goal
