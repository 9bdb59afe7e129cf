"""The rules of API keys."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from app.features.api_keys import repository as queries
from app.features.api_keys.repository import ApiKeyRepository, Row
from app.features.api_keys.schemas import DEFAULT_LIFE, LONGEST_LIFE, ApiKeyIn
from app.features.identity.roles import SCOPES
from app.features.organizations import service as organizations
from app.platform.audit import record
from app.platform.errors import Conflict, Forbidden, NotFound
from app.platform.postgres import ReadSession, WriteSession
from app.platform.security import revocation_log
from app.platform.security.api_keys import FoundKey, digest_of, new_key, shown_part
from app.platform.security.caller import Caller, Role

MOST_KEYS = 200  # live ones, of an organization
# A key that is stolen must not be able to make others, nor to let somebody in.
NOT_FOR_KEYS = frozenset({"api_keys:manage", "members:manage"})


class KeyNameTaken(Conflict):
    """A live key of the organization has this name. Rotate it, or choose another name."""

    slug = "api-key-name-taken"
    title = "Another key has this name"


class AlreadyRotating(Conflict):
    """The key has a successor already: two of one name are live at most. Delete the old one, or wait for its end."""

    slug = "api-key-already-rotating"
    title = "Two keys of this name are live"


class TooManyKeys(Conflict):
    """The organization has as many live keys as it may have."""

    slug = "too-many-api-keys"
    title = "Too many API keys"


class LifeOutOfRange(Conflict):
    """A key ends in the future, and within 366 days."""

    slug = "api-key-life"
    title = "The key would live too long, or not at all"


async def create(session: WriteSession, caller: Caller, body: ApiKeyIn) -> Row:
    """With the key itself under `key`. Raises `Forbidden`, `KeyNameTaken`, `TooManyKeys`, `LifeOutOfRange`."""
    refuse_scopes(caller, body.scopes)
    expires_at = _end(body.expires_at)
    repository = ApiKeyRepository(session, caller.organization_id)
    if await repository.live_count() >= MOST_KEYS:
        raise TooManyKeys()
    await repository.free_slots_of_expired(body.name)
    values = {"name": body.name, "scopes": sorted(set(body.scopes)), "expires_at": expires_at}
    try:
        key = await _add(repository, caller.user_id, slot=0, **values)
    except IntegrityError:
        raise KeyNameTaken() from None
    record(session, caller, "api_key.created", key["id"], scopes=key["scopes"])
    return key


async def rotate(session: WriteSession, caller: Caller, key_id: UUID, overlap_seconds: int) -> Row:
    """A successor with the same name, scopes and life; the old one is good for a while. Raises `NotFound`,
    `AlreadyRotating`.
    """
    repository, old = await _own(session, caller, key_id)
    now = datetime.now(UTC)
    await repository.free_slots_of_expired(old["name"])
    life = {"expires_at": now + (old["expires_at"] - old["created_at"])}
    try:
        new = await _add(
            repository, old["user_id"], slot=1 - old["slot"], name=old["name"], scopes=old["scopes"], **life
        )
    except IntegrityError:
        raise AlreadyRotating() from None
    if overlap_seconds:
        await repository.change(key_id, expires_at=min(old["expires_at"], now + timedelta(seconds=overlap_seconds)))
    else:
        await _revoke(session, repository, key_id)
    record(session, caller, "api_key.rotated", key_id, successor=str(new["id"]), overlap_seconds=overlap_seconds)
    return new


async def revoke(session: WriteSession, caller: Caller, key_id: UUID) -> None:
    """Refused everywhere within a second. Raises `NotFound`."""
    repository, _ = await _own(session, caller, key_id)
    await _revoke(session, repository, key_id)
    record(session, caller, "api_key.revoked", key_id)


async def find(session: ReadSession, digest: bytes) -> FoundKey | None:
    """Whom a key speaks for now, and what it may do: never more than its owner."""
    key = await queries.find(session, digest)
    if key is None:
        return None
    owner = await organizations.standing(session, key["organization_id"], key["user_id"])
    if owner is None or owner["disabled_at"] is not None:
        return None
    role = Role(owner["role"])
    caller = Caller(
        key["user_id"],
        key["organization_id"],
        role,
        frozenset(key["scopes"]) & SCOPES[role],
        token_id=str(key["id"]),
        session_id=key["id"],
        epoch=owner["token_epoch"],
        api_key_id=key["id"],
        tier=owner["tier"],
    )
    return FoundKey(caller, key["expires_at"].timestamp())


async def note_use(session: WriteSession, keys: Collection[tuple[UUID, UUID]]) -> None:
    """Each with its organization."""
    await queries.note_use(session, keys)


def whose(caller: Caller, wanted: UUID | None) -> UUID | None:
    """Whose keys the caller sees: an administrator everybody's, others their own."""
    return wanted if caller.role.at_least(Role.ADMIN) else caller.user_id


def refuse_scopes(caller: Caller, scopes: Collection[str]) -> None:
    """Raises `Forbidden` for what the caller may not do, or no key may."""
    for scope in scopes:
        if scope not in caller.scopes - NOT_FOR_KEYS:
            raise Forbidden("A key may have scopes of your own alone, and none that manages people or keys.")


async def _add(repository: ApiKeyRepository, user_id: UUID, **values: Any) -> Row:
    key = new_key()
    secret = {"prefix": shown_part(key), "digest": digest_of(key)}
    row = await repository.add({"user_id": user_id, **secret, **values})
    return {**row, "key": key}


async def _own(session: WriteSession, caller: Caller, key_id: UUID) -> tuple[ApiKeyRepository, Row]:
    repository = ApiKeyRepository(session, caller.organization_id)
    key = await repository.lock(key_id)
    if key is None or whose(caller, key["user_id"]) != key["user_id"]:
        raise NotFound(f"There is no live API key {key_id}.")
    return repository, key


async def _revoke(session: WriteSession, repository: ApiKeyRepository, key_id: UUID) -> None:
    await repository.change(key_id, revoked_at=datetime.now(UTC))
    await revocation_log.revoke(session, key_id)


def _end(wanted: datetime | None) -> datetime:
    now = datetime.now(UTC)
    if wanted is None:
        return now + DEFAULT_LIFE
    if not now < wanted <= now + LONGEST_LIFE:
        raise LifeOutOfRange()
    return wanted
