"""The rules of who belongs to an organization, and as what."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from app.features.identity.session_service import end_disabled
from app.features.organizations.repository import MemberRepository, Row
from app.features.organizations.schemas import MemberPatch
from app.platform.audit import Actor, record
from app.platform.errors import Conflict, Forbidden, NotFound
from app.platform.postgres import ReadSession, WriteSession
from app.platform.security import revocation_log
from app.platform.security.caller import Caller, Role


class LastOwner(Conflict):
    """Somebody has to own the organization: make another member its owner first."""

    slug = "last-owner"
    title = "The organization has no other owner"


async def change_member(session: WriteSession, caller: Caller, user_id: UUID, body: MemberPatch) -> Row:
    """Their tokens and keys are worth what they may do now, everywhere within a second.

    Raises `NotFound`, `LastOwner`, and `Forbidden` for an administrator who makes, changes or ends an owner.
    """
    repository = MemberRepository(session, caller.organization_id)
    await repository.lock_organization()
    member = await repository.get(user_id)
    if member is None:
        raise NotFound(f"There is no member {user_id}.")
    wanted = _wanted(member, body)
    if caller.role is not Role.OWNER and Role.OWNER in (member["role"], wanted.get("role")):
        raise Forbidden("An owner is made and changed by an owner.")
    if not wanted:
        return member
    if _owns(member) and not _owns(member | wanted) and not await repository.other_owners(user_id):
        raise LastOwner()
    changed = await repository.change(user_id, **wanted)
    await revocation_log.revoke(session, user_id, changed.pop("token_epoch"))
    if wanted.get("disabled_at") is not None:
        await end_disabled(session, caller, user_id)
    record(session, caller, "member.changed", user_id, **_told(wanted))
    return changed


async def standing(session: ReadSession, organization_id: UUID, user_id: UUID) -> Row | None:
    """`role`, `token_epoch` and `disabled_at` of a member, and the `tier` of their organization."""
    return await MemberRepository(session, organization_id).standing(user_id)


async def set_tier(session: WriteSession, organization_id: UUID, tier: str) -> None:
    """For operators. It holds from each member's next access token on, and for API keys when they are looked up again.

    Raises `NotFound`.
    """
    if not await MemberRepository(session, organization_id).set_tier(tier):
        raise NotFound(f"There is no organization {organization_id}.")
    record(session, Actor(organization_id), "organization.tier_changed", organization_id, tier=tier)


def _wanted(member: Row, body: MemberPatch) -> Row:
    """What is to be different."""
    wanted: Row = {}
    if "role" in body.model_fields_set and body.role != member["role"]:
        wanted["role"] = body.role.value
    if "disabled" in body.model_fields_set and body.disabled != (member["disabled_at"] is not None):
        wanted["disabled_at"] = datetime.now(UTC) if body.disabled else None
    return wanted


def _owns(member: Row) -> bool:
    return member["role"] == Role.OWNER and member["disabled_at"] is None


def _told(wanted: Row) -> dict[str, Any]:
    told = {"role": wanted["role"]} if "role" in wanted else {}
    return told | ({"disabled": wanted["disabled_at"] is not None} if "disabled_at" in wanted else {})
