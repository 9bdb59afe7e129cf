"""Verifying the audit log: every entry, every chain and every checkpoint, in one snapshot of the database."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.platform.audit.checkpoints import vouches
from app.platform.audit.keys import AuditKeys, Entry, Signature
from app.platform.audit.tables import AuditCheckpoint, AuditEntry

MOST_FINDINGS = 1_000  # that are kept and told; beyond them they are counted
ROWS_AT_ONCE = 1_000

ENTRIES = select(*AuditEntry.__table__.c).order_by(AuditEntry.organization_id, AuditEntry.lane, AuditEntry.sequence)
CHECKPOINTS = select(*AuditCheckpoint.__table__.c).order_by(AuditCheckpoint.number)
BROKEN_PROMISES = text("""
SELECT number, head ->> 0 AS organization_id, (head ->> 1)::smallint AS lane, (head ->> 2)::bigint AS sequence,
       hash IS NULL AS missing
FROM audit_checkpoints CROSS JOIN jsonb_array_elements(heads) AS head LEFT JOIN audit_entries
    ON organization_id = (head ->> 0)::uuid AND lane = (head ->> 1)::smallint AND sequence = (head ->> 2)::bigint
WHERE encode(hash, 'hex') IS DISTINCT FROM head ->> 3
""")


@dataclass(frozen=True, slots=True)
class Finding:
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(slots=True)
class Report:
    entries: int = 0
    chains: int = 0
    checkpoints: int = 0
    found: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, where: str, what: str) -> None:
        self.found += 1
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(where, what))


async def verify(connection: AsyncConnection, keys: AuditKeys, anchor: tuple[int, bytes] | None = None) -> Report:
    """What is wrong, if anything, in the snapshot of the connection's transaction.

    `anchor`: a checkpoint's number and signature that were kept elsewhere.
    """
    report = Report()
    await _verify_chains(connection, keys, report)
    await _verify_checkpoints(connection, keys, report, anchor)
    return report


class Chain:
    """Entries of one organization and lane, in their order."""

    def __init__(self, name: tuple[Any, int]) -> None:
        self.name = name
        self._sequence = 0
        self._hash = b""

    def faults(self, row: Row[Any]) -> Iterator[str]:
        expected, previous = self._sequence + 1, self._hash
        self._sequence, self._hash = row.sequence, row.hash
        if row.sequence != expected:
            yield f"{row.sequence - expected} entries before it are missing"
        elif row.hash != chained(previous, row.lane, row.sequence, row.mac):
            yield "does not follow from the entry before it"


def chained(previous: bytes, lane: int, sequence: int, mac: bytes) -> bytes:
    """The hash of an entry, as `append_audit_entry` computes it."""
    return sha256(previous + lane.to_bytes(8) + sequence.to_bytes(8) + mac).digest()


async def _verify_chains(connection: AsyncConnection, keys: AuditKeys, report: Report) -> None:
    chain: Chain | None = None
    async for row in _rows(connection, ENTRIES):
        if chain is None or chain.name != (row.organization_id, row.lane):
            chain = Chain((row.organization_id, row.lane))
            report.chains += 1
        report.entries += 1
        where = f"organization {row.organization_id}, lane {row.lane}, entry {row.sequence}"
        for fault in chain.faults(row):
            report.add(where, fault)
        if not keys.verifies(Signature(row.key_id, row.mac), _entry(row).canonical()):
            report.add(where, "was changed or forged, or its key is not among those given")


async def _verify_checkpoints(
    connection: AsyncConnection, keys: AuditKeys, report: Report, anchor: tuple[int, bytes] | None
) -> None:
    number, previous, anchored = 0, b"", anchor is None
    async for row in _rows(connection, CHECKPOINTS):
        report.checkpoints += 1
        if row.number != number + 1:
            report.add(f"checkpoint {row.number}", f"{row.number - number - 1} checkpoints before it are missing")
        elif not vouches(keys, row, previous):
            report.add(f"checkpoint {row.number}", "was changed or forged, or its key is not among those given")
        number, previous = row.number, row.mac
        anchored = anchored or anchor == (row.number, row.mac)
    if anchor is not None and not anchored:
        report.add(f"checkpoint {anchor[0]}", "is missing, or not the one that was kept")
    async for row in _rows(connection, BROKEN_PROMISES):
        where = f"organization {row.organization_id}, lane {row.lane}, entry {row.sequence}"
        what = "is missing" if row.missing else "is not the one"
        report.add(where, f"{what} that checkpoint {row.number} has signed")


async def _rows(connection: AsyncConnection, statement: Any) -> AsyncIterator[Row[Any]]:
    """As they come: the log may be larger than memory."""
    result = await connection.stream(statement.execution_options(yield_per=ROWS_AT_ONCE))
    async for row in result:
        yield row


def _entry(row: Row[Any]) -> Entry:
    return Entry(**{name: getattr(row, name) for name in Entry.__slots__})
