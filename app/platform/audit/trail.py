"""Writing the audit log: entries are named where the effect is, and written at the end of its transaction, in it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import orjson
from prometheus_client import Counter
from sqlalchemy import Text, bindparam, event, func, select

from app.platform.audit.keys import AuditKeys, Details, Entry
from app.platform.audit.tables import AuditEntry
from app.platform.postgres import Prepared, Statements, WriteSession, fetch
from app.platform.postgres.base import uuid7
from app.platform.telemetry.context import current

PENDING = "audit"  # in the session's info
MAX_ADDRESS = 64

ENTRIES = Counter("audit_entries_total", "Entries written to the audit log, by what they tell of", ["action"])

# In the order of the function's parameters, with their types.
PARAMETERS = (
    *(AuditEntry.organization_id, AuditEntry.id, AuditEntry.occurred_at, AuditEntry.actor_id, AuditEntry.api_key_id),
    *(AuditEntry.action, AuditEntry.target_id, AuditEntry.details, AuditEntry.address, AuditEntry.request_id),
    *(AuditEntry.key_id, AuditEntry.mac),
)
APPEND = func.append_audit_entry(
    *(bindparam(each.key, type_=Text if each.key == "details" else each.type) for each in PARAMETERS), type_=Text
)
STATEMENTS = Statements()


def append_statement() -> Prepared:
    return Prepared(select(APPEND.label("appended")))


class Who(Protocol):
    """A caller is one."""

    @property
    def organization_id(self) -> UUID: ...
    @property
    def user_id(self) -> UUID | None: ...
    @property
    def api_key_id(self) -> UUID | None: ...


class Actor(NamedTuple):
    """Who acts where there is no caller yet: somebody who signs up, or the service itself (`user_id` is None)."""

    organization_id: UUID
    user_id: UUID | None = None
    api_key_id: UUID | None = None


class _Act(NamedTuple):
    who: Who
    action: str
    target_id: UUID | None
    details: Details


def record(session: WriteSession, who: Who, action: str, target_id: UUID | None = None, **details: Any) -> None:
    """This transaction does `action` (`equipment.created`) to `target_id`: it commits with an entry, or not at all.

    Details are texts, integers, booleans, None and lists of them; never secrets, and no more of a person than an id.
    Raises `NoTrail`.
    """
    if not any(isinstance(finish, AuditTrail) for finish in session.before_commit):
        raise NoTrail("this database has no audit trail: the entry would be lost")
    pending: list[_Act] = session.info.setdefault(PENDING, [])
    if not pending:
        event.listen(session.sync_session, "after_rollback", lambda _: pending.clear())
    pending.append(_Act(who, action, target_id, details))


class NoTrail(RuntimeError):
    """The session's database was opened without an `AuditTrail` among its `before_commit`: a mistake in the code."""


class AuditTrail:
    """One of what a database does `before_commit`. `enabled=False`: nothing is written."""

    def __init__(self, keys: AuditKeys, *, enabled: bool = True) -> None:
        self._keys = keys
        self._enabled = enabled

    async def __call__(self, session: WriteSession) -> None:
        """Before COMMIT, and last of all: from here on the transaction has one of its organization's lanes."""
        acts: Sequence[_Act] = session.info.pop(PENDING, ())
        if not self._enabled:
            return
        for act in acts:
            await fetch(session, STATEMENTS.get("append", append_statement), self._row(act))
            ENTRIES.labels(act.action).inc()

    def _row(self, act: _Act) -> dict[str, Any]:
        context = current()
        entry = Entry(
            id=uuid7(),
            organization_id=act.who.organization_id,
            occurred_at=datetime.now(UTC),
            actor_id=act.who.user_id,
            api_key_id=act.who.api_key_id,
            action=act.action,
            target_id=act.target_id,
            details=act.details,
            address=context.client_address[:MAX_ADDRESS],
            request_id=context.request_id,
        )
        signature = self._keys.sign(entry.canonical())
        row = {name: getattr(entry, name) for name in Entry.__slots__}
        return row | {"details": orjson.dumps(act.details).decode(), "key_id": signature.key_id, "mac": signature.mac}
