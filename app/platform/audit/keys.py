"""The keys of the audit log: what they sign nobody can make or change who has the database alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest, digest
from typing import Any
from uuid import UUID

import orjson

Details = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """`details` holds texts, integers, booleans, None and lists of them: what jsonb gives back as it was."""

    id: UUID
    organization_id: UUID
    occurred_at: datetime
    actor_id: UUID | None
    api_key_id: UUID | None
    action: str
    target_id: UUID | None
    details: Details
    address: str
    request_id: str

    def canonical(self) -> bytes:
        """One spelling for equal entries, whether they come from here or from the database."""
        moment = self.occurred_at.astimezone(UTC).isoformat(timespec="microseconds")
        who = (self.organization_id, self.actor_id, self.api_key_id)
        parts = [self.id, moment, *who, self.action, self.target_id, self.details, self.address, self.request_id]
        return orjson.dumps(parts, default=str, option=orjson.OPT_SORT_KEYS)  # str: asyncpg has UUIDs of its own


@dataclass(frozen=True, slots=True)
class Signature:
    key_id: str
    mac: bytes


class AuditKeys:
    """Keys derived from secrets: the first one signs, each of them verifies. HMAC-SHA256 (RFC 2104).

    `secrets` is asked each time, so that a rotation needs no restart.
    """

    def __init__(self, secrets: Callable[[], Sequence[str]]) -> None:
        self._secrets = secrets

    def sign(self, data: bytes) -> Signature:
        key_id, key = _derived(self._secrets()[0])
        return Signature(key_id, digest(key, data, "sha256"))

    def verifies(self, signature: Signature, data: bytes) -> bool:
        """False also where the key is not one of these."""
        keys = dict(map(_derived, self._secrets()))
        key = keys.get(signature.key_id)
        return key is not None and compare_digest(digest(key, data, "sha256"), signature.mac)


@lru_cache(maxsize=64)
def _derived(secret: str) -> tuple[str, bytes]:
    key = blake2b(secret.encode(), person=b"audit log", digest_size=32).digest()
    return blake2b(key, digest_size=4).hexdigest(), key
