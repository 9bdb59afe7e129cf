"""Checkpoints: the ends of the chains, signed every few seconds.

Who can write to the database and knows the chain could cut its end off, or make it anew without an entry. What lies
before a checkpoint is fixed by a signature that they can't make; and a checkpoint is told to the log, out of reach.
"""

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from prometheus_client import Counter
from sqlalchemy import desc, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import DBAPIError

from app.platform.audit.keys import AuditKeys, Signature
from app.platform.audit.tables import AuditCheckpoint, AuditEntry
from app.platform.postgres import Database, WriteSession
from app.platform.postgres.errors import DatabaseError

logger = logging.getLogger(__name__)

CHECKPOINTS = Counter("audit_checkpoints_total", "Checkpoints of the audit log, signed by this process")

LOCK = 7_236_451_098  # of whoever makes a checkpoint: any number that no other advisory lock has
MOST_HEADS = 10_000  # in one checkpoint; what is left over goes into the next
# Entries show up to a COMMIT after their time, by the clocks of the instances.
OVERLAP = timedelta(seconds=60)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

Heads = list[list[Any]]


def canonical(number: int, made_at: datetime, heads: Heads, previous: bytes) -> bytes:
    """What is signed: each checkpoint vouches for the one before it too."""
    moment = made_at.astimezone(UTC).isoformat(timespec="microseconds")
    return orjson.dumps([number, moment, heads, previous.hex()])


class Checkpoints:
    """Every process keeps making them; of all at once one does."""

    def __init__(self, database: Database, keys: AuditKeys, *, interval_seconds: float) -> None:
        self._database = database
        self._keys = keys
        self._interval = interval_seconds

    async def run(self) -> None:
        """Until it is cancelled. Without a database it tries again later."""
        while True:
            await asyncio.sleep(self._interval * random.uniform(0.5, 1.5))
            try:
                await self.make()
            except (DatabaseError, DBAPIError, OSError):
                logger.warning("no audit checkpoint could be made")

    async def make(self) -> int | None:
        """The number of a new checkpoint; None where nothing is new or another process is making one."""
        async with self._database.write() as session:
            if not await session.scalar(select(func.pg_try_advisory_xact_lock(LOCK))):
                return None
            made = await self._make(session)
        if made is None:
            return None
        number, mac = made
        CHECKPOINTS.inc()
        logger.info("audit checkpoint %d:%s", number, mac.hex())
        return number

    async def _make(self, session: WriteSession) -> tuple[int, bytes] | None:
        newest = select(AuditCheckpoint.number, AuditCheckpoint.made_at, AuditCheckpoint.mac)
        last = (await session.execute(newest.order_by(desc(AuditCheckpoint.number)).limit(1))).one_or_none()
        heads = await _grown(session, EPOCH if last is None else last.made_at - OVERLAP)
        if not heads:
            return None
        number, previous = (1, b"") if last is None else (last.number + 1, last.mac)
        made_at = datetime.now(UTC)
        signature = self._keys.sign(canonical(number, made_at, heads, previous))
        values = {"number": number, "made_at": made_at, "heads": heads, "key_id": signature.key_id}
        await session.execute(insert(AuditCheckpoint).values(**values, mac=signature.mac))
        return number, signature.mac


async def _grown(session: WriteSession, since: datetime) -> Heads:
    """The ends of the chains with entries since then, those left out that a checkpoint since then has as they are."""
    chain = (AuditEntry.organization_id, AuditEntry.lane)
    ends = select(*chain, AuditEntry.sequence, AuditEntry.hash).where(AuditEntry.occurred_at > since)
    newest_first = ends.ext(distinct_on(*chain)).order_by(*chain, desc(AuditEntry.sequence))
    rows = await session.execute(newest_first)
    signed = await session.scalars(select(AuditCheckpoint.heads).where(AuditCheckpoint.made_at > since))
    known = {(str(organization), lane, sequence) for heads in signed for organization, lane, sequence, _ in heads}
    return [head for head in map(_head, rows) if (*head[:3],) not in known][:MOST_HEADS]


def _head(row: Any) -> list[Any]:
    return [str(row.organization_id), row.lane, row.sequence, row.hash.hex()]


def vouches(keys: AuditKeys, checkpoint: AuditCheckpoint | Any, previous: bytes) -> bool:
    data = canonical(checkpoint.number, checkpoint.made_at, checkpoint.heads, previous)
    return keys.verifies(Signature(checkpoint.key_id, checkpoint.mac), data)


def anchor_of(told: str) -> tuple[int, bytes]:
    """`NUMBER:SIGNATURE`, as the log has it. Raises ValueError."""
    number, _, mac = told.partition(":")
    return int(number), bytes.fromhex(mac)
