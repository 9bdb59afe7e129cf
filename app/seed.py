"""Demo data: `python -m app.seed --rows 274`, by COPY. Running it again adds nothing to what is complete.

The default is the size that the audit in the README counts: 274 items with five checkouts each. Every size is an
organization of its own; its owner logs in as demo@example.com, or demo-<rows>@example.com for other sizes.
"""

import argparse
import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any
from uuid import UUID

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from sqlalchemy import make_url
from tqdm import tqdm

from app.platform.postgres.base import uuid7
from app.platform.security.passwords import PasswordHasher
from app.settings import Settings

AUDITED_ROWS = 274
AUDITED_CHECKOUTS = 5
PASSWORD = "headroom-demo"
BATCH_ROWS = 20_000
MAX_ROWS = 10_000_000

CATEGORIES = ("camera", "lens", "light", "audio", "grip", "drone", "computer", "storage")
MODELS = ("Aurora", "Basalt", "Cirrus", "Delta", "Ember", "Fjord", "Glacier", "Horizon", "Isotope", "Juniper")
PLACES = ("Studio A", "Studio B", "Warehouse", "Van 1", "Van 2", "Front desk")
TAGS = ("4k", "wireless", "insured", "rental", "battery", "fragile", "new", "backup")
CONDITIONS = ("good", "good", "good", "worn", "scratched")
ROLES = ("owner", "admin", "member", "viewer")

Record = tuple[Any, ...]
EQUIPMENT = (
    *("organization_id", "id", "asset_tag", "name", "category", "status", "location", "tags", "description"),
    *("attributes", "purchase_price", "created_at", "updated_at"),
)
CHECKOUTS = (
    *("organization_id", "id", "equipment_id", "user_id", "checked_out_at", "due_at", "returned_at"),
    *("note", "condition", "updated_at"),
)


SECONDARY_INDEXES = """
SELECT indexname, indexdef FROM pg_indexes
WHERE schemaname = current_schema() AND tablename IN ('equipment', 'checkouts') AND indexdef NOT LIKE 'CREATE UNIQUE%'
"""


@dataclass(frozen=True, slots=True)
class Plan:
    rows: int
    checkouts: int
    document_bytes: int  # size of each item's `attributes`; the audit counted 50 KB a document

    @property
    def suffix(self) -> str:
        audited = self.rows == AUDITED_ROWS and not self.document_bytes
        return "" if audited else f"-{self.rows}" + (f"-{self.document_bytes}" if self.document_bytes else "")

    def email(self, role: str = "owner") -> str:
        return f"demo{self.suffix}@example.com" if role == "owner" else f"demo{self.suffix}-{role}@example.com"


class Generator:
    """The same plan makes the same items; only ids and times differ."""

    def __init__(self, plan: Plan, organization_id: UUID, user_ids: list[UUID]) -> None:
        self.plan = plan
        self.organization_id = organization_id
        self.user_ids = user_ids
        self.random = random.Random(plan.rows)
        self.now = datetime.now(UTC)

    def batches(self, first: int) -> Iterator[tuple[list[Record], list[Record]]]:
        """Items from number `first` on, with their checkouts, a batch at a time."""
        numbers = iter(range(first, self.plan.rows + 1))
        while batch := list(islice(numbers, BATCH_ROWS)):
            made = [self._item(number) for number in batch]
            yield [item for item, _ in made], [checkout for _, checkouts in made for checkout in checkouts]

    def _item(self, number: int) -> tuple[Record, list[Record]]:
        choose = self.random.choice
        category, equipment_id = CATEGORIES[number % len(CATEGORIES)], uuid7()
        is_out = bool(self.plan.checkouts) and number % 10 == 0
        status = "checked_out" if is_out else "maintenance" if number % 17 == 0 else "available"
        bought = self.now - timedelta(days=self.random.randint(400, 1_500), seconds=number)
        item = (
            self.organization_id,
            equipment_id,
            f"{category[:3].upper()}-{number:07d}",
            f"{choose(MODELS)} {category} {self.random.randint(1, 9)}{choose('ABCDEF')}",
            category,
            status,
            choose(PLACES),
            self.random.sample(TAGS, self.random.randint(0, 3)),
            f"Bought for {choose(PLACES)}, serviced every {self.random.randint(3, 24)} months.",
            self._attributes(number),
            Decimal(self.random.randint(5_000, 900_000)) / 100,
            bought,
            bought + timedelta(days=self.random.randint(0, 300)),
        )
        return item, [self._checkout(equipment_id, turn, is_out) for turn in range(self.plan.checkouts)]

    def _attributes(self, number: int) -> str:
        padding = "x" * max(0, self.plan.document_bytes - 60)
        return f'{{"serial": "SN{number:010d}", "weight_g": {self.random.randint(80, 9_000)}, "history": "{padding}"}}'

    def _checkout(self, equipment_id: UUID, turn: int, is_out: bool) -> Record:
        """Turn 0 is the newest; it's the open one of an item that is out, and overdue in half of the cases."""
        taken = self.now - timedelta(days=30 * turn + 5, seconds=self.random.randint(0, 86_400))
        due = taken + timedelta(days=self.random.choice((3, 10)))
        returned = None if is_out and turn == 0 else taken + timedelta(days=2)
        condition = None if returned is None else self.random.choice(CONDITIONS)
        user_id = self.random.choice(self.user_ids)
        whose = (self.organization_id, uuid7(), equipment_id, user_id)
        return (*whose, taken, due, returned, "", condition, returned or taken)


async def seed(connection: Any, plan: Plan) -> None:
    organization_id, user_ids = await ensure_people(connection, plan)
    present = await connection.fetchval("SELECT count(*) FROM equipment WHERE organization_id = $1", organization_id)
    if present >= plan.rows:
        return
    generator = Generator(plan, organization_id, user_ids)
    async with connection.transaction():
        # Durable enough for data that can be made again.
        await connection.execute("SET LOCAL synchronous_commit = off")
        async with without_indexes(connection, enabled=plan.rows > BATCH_ROWS):
            await copy(connection, generator, first=present + 1)
    await connection.execute("ANALYZE equipment, checkouts, users, organizations")


async def copy(connection: Any, generator: Generator, first: int) -> None:
    rows = generator.plan.rows
    with tqdm(total=rows, initial=first - 1, unit=" items", disable=rows <= BATCH_ROWS) as bar:
        for equipment, checkouts in generator.batches(first):
            await connection.copy_records_to_table("equipment", records=equipment, columns=EQUIPMENT)
            await connection.copy_records_to_table("checkouts", records=checkouts, columns=CHECKOUTS)
            bar.update(len(equipment))


@asynccontextmanager
async def without_indexes(connection: Any, *, enabled: bool) -> AsyncIterator[None]:
    """Take the secondary indexes away and build them anew afterwards: a third of the time of keeping them up to date.

    In the caller's transaction, so that they are never missing; the tables are locked meanwhile.
    """
    found = await connection.fetch(SECONDARY_INDEXES) if enabled else []
    for index in found:
        await connection.execute(f'DROP INDEX "{index["indexname"]}"')
    yield
    if found:
        await connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
    for index in tqdm(found, unit=" indexes", disable=not enabled):
        await connection.execute(index["indexdef"])


async def ensure_people(connection: Any, plan: Plan) -> tuple[UUID, list[UUID]]:
    """The organization and a person for each role, made where they are missing."""
    found = await connection.fetchrow("SELECT organization_id FROM users WHERE email = $1", plan.email())
    if found is None:
        found = {"organization_id": await add_people(connection, plan)}
    rows = await connection.fetch("SELECT id FROM users WHERE organization_id = $1", found["organization_id"])
    return found["organization_id"], [row["id"] for row in rows]


async def add_people(connection: Any, plan: Plan) -> UUID:
    organization_id, password_hash = uuid7(), await PasswordHasher(1).hash(PASSWORD)
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO organizations (id, name) VALUES ($1, $2)", organization_id, f"Demo{plan.suffix}"
        )
        await connection.executemany(
            "INSERT INTO users (id, organization_id, email, full_name, role, password_hash, email_verified_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, now())",
            [(uuid7(), organization_id, plan.email(role), f"Demo {role}", role, password_hash) for role in ROLES],
        )
    return organization_id


async def main(plan: Plan, settings: Settings) -> None:
    url = make_url(settings.owner_url).set(drivername="postgresql")
    dsn = url.render_as_string(hide_password=False)
    connection = await asyncpg.connect(dsn, timeout=10, target_session_attrs=SessionAttribute.primary)
    try:
        await seed(connection, plan)
    finally:
        await connection.close(timeout=10)
    print(f"Log in as {plan.email()} with the password {PASSWORD}")


def parse_arguments() -> Plan:
    parser = argparse.ArgumentParser(prog="python -m app.seed", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=AUDITED_ROWS, help="items (default %(default)s)")
    parser.add_argument("--checkouts", type=int, default=AUDITED_CHECKOUTS, help="of each item (default %(default)s)")
    parser.add_argument("--document-bytes", type=int, default=0, help="of each item's attributes (default small)")
    arguments = parser.parse_args()
    if not (
        0 < arguments.rows <= MAX_ROWS and 0 <= arguments.checkouts <= 50 and 0 <= arguments.document_bytes <= 65_536
    ):
        parser.error(f"rows: 1 to {MAX_ROWS}, checkouts: 0 to 50, document bytes: 0 to 65536")
    return Plan(arguments.rows, arguments.checkouts, arguments.document_bytes)


if __name__ == "__main__":
    settings = Settings()
    if settings.production:
        raise SystemExit("production isn't seeded: the demo's password is public")
    asyncio.run(main(parse_arguments(), settings))
