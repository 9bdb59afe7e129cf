"""Every query of the repositories on big tables: on an index, and never a sort that spills.

One organization has most of the rows, others have few: a plan that is good for one may be bad for the other.
"""

import importlib
import inspect
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import app.features
from app.features.checkouts.repository import CheckoutRepository
from app.features.equipment.models import Equipment
from app.features.equipment.repository import LISTING as EQUIPMENT
from app.features.equipment.repository import EquipmentRepository
from app.features.equipment.schemas import EquipmentQuery
from app.features.organizations.repository import MemberRepository
from app.platform.http.cursors import Position
from app.platform.http.pagination import Listing, Slice
from app.seed import Plan as SeedPlan
from app.seed import seed
from bench.explain import Explainer, explain
from bench.plans import Plan
from bench.queries import LISTS, Examples, List, middle, window_of, with_ids
from bench.single_queries import name_of, queries
from tests.support.api import connected, create_database, in_database
from tests.support.crowd import add_crowd
from tests.support.plans import BIG, Plans, told_plans
from tests.support.stack import DataServices, as_asyncpg

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROWS = {"big": 100_000, "small": 500}
DEPTH = 0.9
FIELDS = {"equipment": ("id", "updated_at"), "checkouts": ("id", "due_at", "status")}
LISTED = [(each, name) for each in LISTS for name in each.filters]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def dsn(services: DataServices) -> str:
    await create_database(services, "plans")
    dsn = in_database(services.primary_dsn, "plans")
    async with connected(dsn) as connection:
        for rows in ROWS.values():
            await seed(connection, SeedPlan(rows, checkouts=1, document_bytes=0))
        await add_crowd(connection, await organization_of(dsn, ROWS["big"]))
        await connection.execute(f"VACUUM ANALYZE {', '.join(BIG)}")
    return dsn


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plans(dsn: str) -> AsyncIterator[Plans]:
    async with told_plans(dsn) as plans:
        yield plans


async def organization_of(dsn: str, rows: int) -> UUID:
    async with connected(dsn) as connection:
        email = SeedPlan(rows, 1, 0).email()
        return await connection.fetchval("SELECT organization_id FROM users WHERE email = $1", email)


@pytest_asyncio.fixture(loop_scope="session", params=ROWS)
async def organization(request: pytest.FixtureRequest, dsn: str) -> UUID:
    return await organization_of(dsn, ROWS[request.param])


@pytest_asyncio.fixture(loop_scope="session")
async def big(dsn: str) -> UUID:
    return await organization_of(dsn, ROWS["big"])


async def cursor_at(repository: Any, listing: Listing, query: Any, number: int) -> str | None:
    """Of a page that begins after the row of that number; None where there is none."""
    window = window_of(listing, query, repository.organization_id)
    key = (query.sort or listing.default_sort).removeprefix("-")
    edge = window.order.apply(repository.matching(query, (key, "id"))).offset(number).limit(1)
    row = (await repository.session.execute(edge)).one_or_none()
    return None if row is None else window.seal.encode(Position("next", tuple(row)))


async def plan_of_page(plans: Plans, repository: Any, listing: Listing, query: Any) -> Plan:
    fields = FIELDS.get(listing.name, ("id",))
    window = window_of(listing, query, repository.organization_id)
    [plan] = await plans.of(lambda: repository.page(query, fields, window))
    return plan


async def faults_of_pages(plans: Plans, repository: Any, listing: Listing, query: Any) -> dict[str, list[str]]:
    """What is wrong with the first page, a deep one, and one by number, by sort key; with filters, by two of those."""
    sorts = [f"{sign}{name}" for name in listing.sorts for sign in ("", "-")]
    if any(query.filters().values()):
        sorts = [sorts[0], sorts[-1]]
    counting = query.model_copy(update={"total": "exact", "limit": 1})
    rows = (await repository.page(counting, ("id",), window_of(listing, counting, repository.organization_id))).total
    faults: dict[str, list[str]] = {}
    for sort in sorts:
        sorted_query = query.model_copy(update={"sort": sort})
        deep = await cursor_at(repository, listing, sorted_query, int(rows * DEPTH))
        for changes in ({}, {"cursor": deep}, {"page": 3}):
            plan = await plan_of_page(plans, repository, listing, sorted_query.model_copy(update=changes))
            if plan.faults:
                faults[f"{sort} {changes}"] = plan.faults
    return faults


@pytest.mark.parametrize(("each", "name"), LISTED, ids=lambda value: getattr(value, "method", value))
async def test_lists(plans: Plans, organization: UUID, each: List, name: str) -> None:
    example = await middle(plans.session, each.model, organization)
    assert example is not None
    query = each.query(**with_ids(each.filters[name], example))
    repository = each.repository(plans.session, organization)
    assert await faults_of_pages(plans, repository, each.listing, query) == {}


async def rows_of(repository: Any, listing: Listing, query: Any, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    page: Slice = await repository.page(query, fields, window_of(listing, query, repository.organization_id))
    return page.items


async def test_relations(plans: Plans, organization: UUID) -> None:
    items = await rows_of(
        EquipmentRepository(plans.session, organization), EQUIPMENT, EquipmentQuery(limit=200), ("id",)
    )
    ids = [item["id"] for item in items]
    repository = CheckoutRepository(plans.session, organization)
    [newest] = await plans.of(lambda: repository.newest_of(ids, ("id", "status"), 50))
    [current] = await plans.of(lambda: repository.open_of(ids, ("id", "status")))
    assert newest.faults + current.faults == []
    assert max(newest.buffers, current.buffers) < 20 * len(ids)


async def test_no_query_reads_a_big_table_from_end_to_end_unless_it_counts(dsn: str, organization: UUID) -> None:
    async with explainer(dsn) as (session, explaining):
        faults = {}
        for query in queries(await Examples.of(session, organization)):
            plan = await explaining.plan(query)
            if plan.faults and not query.counts:
                faults[f"{query.method} {query.variant}"] = plan.faults
    assert faults == {}


@asynccontextmanager
async def explainer(dsn: str) -> AsyncIterator[tuple[AsyncSession, Explainer]]:
    engine = create_async_engine(as_asyncpg(dsn))
    async with AsyncSession(engine) as session:
        yield session, Explainer(engine, BIG, analyze=False)
    await engine.dispose()


def of_repositories() -> set[str]:
    """The names of all queries: coroutines in the modules of repositories, public ones."""
    found = set()
    for path in Path(app.features.__path__[0]).glob("*/*repository.py"):
        module = importlib.import_module(f"app.features.{path.parent.name}.{path.stem}")
        own = [each for each in vars(module).values() if getattr(each, "__module__", "") == module.__name__]
        kinds = [each for each in own if inspect.isclass(each) and each.__name__.endswith("Repository")]
        methods = [(f"{kind.__name__}.{name}", each) for kind in kinds for name, each in vars(kind).items()]
        functions = [(name_of(each), each) for each in own if inspect.isfunction(each)]
        named = [(name, each) for name, each in methods + functions if not name.rpartition(".")[2].startswith("_")]
        found |= {name for name, each in named if inspect.iscoroutinefunction(each)}
    return found


async def without_plan(dsn: str, organization: UUID) -> set[str]:
    async with explainer(dsn) as (session, _):
        return of_repositories() - {query.method for query in queries(await Examples.of(session, organization))}


async def test_every_query_of_every_repository_has_a_plan(dsn: str, big: UUID) -> None:
    assert await without_plan(dsn, big) == set()
    assert len(of_repositories()) > 60


async def test_control_a_new_query_without_a_plan_is_noticed(
    dsn: str, big: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def by_name(self: MemberRepository, name: str) -> None: ...

    monkeypatch.setattr(MemberRepository, "by_name", by_name, raising=False)
    assert await without_plan(dsn, big) == {"MemberRepository.by_name"}


@pytest.mark.parametrize("filters", [{}, {"category": "camera"}, {"q": "cam"}])
async def test_an_estimate_counts_no_row(plans: Plans, organization: UUID, filters: dict[str, Any]) -> None:
    repository = EquipmentRepository(plans.session, organization)
    query = EquipmentQuery(**filters, total="estimate", limit=1)
    window = window_of(EQUIPMENT, query, repository.organization_id)
    _, *counts = await plans.of(lambda: repository.page(query, ("id",), window), runs=1)
    assert sum(count.buffers for count in counts) == 0
    exact = await repository.page(query.model_copy(update={"total": "exact"}), ("id",), window)
    estimate = await repository.page(query, ("id",), window)
    assert exact.total / 4 < estimate.total < exact.total * 4  # ANALYZE takes a sample: of a word it knows little


@pytest.mark.parametrize("filters", [{}, {"category": "camera"}, {"status": "available"}, {"location": "Van 1"}])
async def test_a_deep_page_reads_as_much_as_the_first(plans: Plans, big: UUID, filters: dict[str, Any]) -> None:
    repository = EquipmentRepository(plans.session, big)
    query = EquipmentQuery(**filters)
    first = await plan_of_page(plans, repository, EQUIPMENT, query)
    for number in (1_000, 10_000):
        cursor = await cursor_at(repository, EQUIPMENT, query, number)
        deep = await plan_of_page(plans, repository, EQUIPMENT, query.model_copy(update={"cursor": cursor}))
        assert deep.sorted_rows == 0
        assert deep.buffers < first.buffers * 1.2


async def test_control_a_deep_page_by_number_reads_all_before_it(plans: Plans, big: UUID) -> None:
    repository = EquipmentRepository(plans.session, big)
    first = await plan_of_page(plans, repository, EQUIPMENT, EquipmentQuery(page=1))
    deep = await plan_of_page(plans, repository, EQUIPMENT, EquipmentQuery(page=200))
    assert deep.buffers > first.buffers * 50


async def test_control_a_filter_without_an_index_is_noticed(plans: Plans, big: UUID) -> None:
    statement = select(Equipment.id).where(Equipment.description == "x")
    [plan] = await plans.of(lambda: plans.session.execute(statement))
    assert plan.faults == ["sequential scan of equipment"]


async def test_control_a_sort_without_an_index_is_noticed(plans: Plans, big: UUID) -> None:
    statement = select(Equipment.id, Equipment.description).order_by(Equipment.description).offset(ROWS["big"])
    [plan] = await plans.of(lambda: plans.session.execute(statement))
    assert "Sort on disk" in plan.faults


async def explained(dsn: str, **server_settings: str) -> int:
    engine = create_async_engine(as_asyncpg(dsn), connect_args={"server_settings": server_settings})
    try:
        return await explain(engine, brief=True)
    finally:
        await engine.dispose()


async def test_make_explain_shows_every_query_and_runs_none(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with connected(dsn) as connection:
        rows = "SELECT (SELECT count(*) FROM equipment), (SELECT count(*) FROM checkouts), (SELECT count(*) FROM users)"
        before = await connection.fetchrow(rows)
        assert await explained(dsn) == 0
        assert await connection.fetchrow(rows) == before
    shown = re.findall(r"^([\w.]+)$", capsys.readouterr().out, re.MULTILINE)
    assert of_repositories() <= set(shown)


async def test_control_make_explain_fails_without_the_indexes(dsn: str) -> None:
    kinds = ("indexscan", "indexonlyscan", "bitmapscan")
    assert await explained(dsn, **{f"enable_{kind}": "off" for kind in kinds}) > 0
