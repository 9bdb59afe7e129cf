"""The rules of inviting somebody, and the mail that does it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from app.features.identity.password_service import TokenNotGood
from app.features.identity.service import EmailTaken
from app.features.organizations import invitation_repository as queries
from app.features.organizations.invitation_repository import InvitationRepository, Row
from app.features.organizations.invitation_schemas import InvitationIn
from app.features.organizations.repository import MemberRepository
from app.platform.audit import Actor, record
from app.platform.errors import Conflict, Forbidden, NotFound
from app.platform.mail import Mail, order_mail
from app.platform.mail.sender import Writer
from app.platform.postgres import Database, ReadSession, WriteSession
from app.platform.security.caller import Caller, Role
from app.platform.security.single_use import digest, new_token

KIND = "invitation"
LASTS = timedelta(days=7)
MOST_OPEN = 200  # of an organization

INVITATION = """Hello,

you are invited to {organization}. To join, follow this within seven days:

{link}

If you don't know what this is about, do nothing.
"""


class AlreadyInvited(Conflict):
    """The address has an open invitation. Revoke it first, or wait for the answer."""

    slug = "already-invited"
    title = "The address is invited already"


class TooManyInvitations(Conflict):
    """The organization has as many open invitations as it may have."""

    slug = "too-many-invitations"
    title = "Too many open invitations"


async def invite(session: WriteSession, caller: Caller, body: InvitationIn) -> Row:
    """Nothing is told of whether the address has an account. Raises `Forbidden`, `AlreadyInvited`,
    `TooManyInvitations`.
    """
    if body.role is Role.OWNER and caller.role is not Role.OWNER:
        raise Forbidden("An owner is made by an owner.")
    repository = InvitationRepository(session, caller.organization_id)
    if await repository.open_count() >= MOST_OPEN:
        raise TooManyInvitations()
    await repository.end_expired(body.email)
    values = {"email": body.email, "role": body.role.value, "expires_at": datetime.now(UTC) + LASTS}
    try:
        invitation = await repository.add(**values, invited_by=caller.user_id)
    except IntegrityError:
        raise AlreadyInvited() from None
    ids = {"organization_id": str(caller.organization_id), "invitation_id": str(invitation["id"])}
    await order_mail(session, KIND, email=body.email, **ids)
    record(session, caller, "invitation.created", invitation["id"], role=body.role.value)
    return invitation


async def revoke(session: WriteSession, caller: Caller, invitation_id: UUID) -> None:
    """Raises `NotFound` where there is no open one."""
    if not await InvitationRepository(session, caller.organization_id).revoke(invitation_id):
        raise NotFound(f"There is no open invitation {invitation_id}.")
    record(session, caller, "invitation.revoked", invitation_id)


async def invited(session: ReadSession, token: str) -> str | None:
    """The address. None is not refused yet: it may be a request that was carried out before, which is known where its
    `Idempotency-Key` is claimed.
    """
    found = await queries.find(session, digest(token, KIND))
    return None if found is None else str(found["email"])


async def accept(session: WriteSession, token: str, full_name: str, password_hash: str) -> Row:
    """The new member. Raises `TokenNotGood`, `EmailTaken`."""
    found = await queries.accept(session, digest(token, KIND))
    if found is None:
        raise TokenNotGood()
    person = {"full_name": full_name, "password_hash": password_hash, "email": found["email"], "role": found["role"]}
    try:
        user_id = await queries.add_member(session, organization_id=found["organization_id"], **person)
    except IntegrityError:
        raise EmailTaken() from None
    record(session, Actor(found["organization_id"], user_id), "invitation.accepted", found["id"])
    member = await MemberRepository(session, found["organization_id"]).get(user_id)
    assert member is not None
    return member


@dataclass(frozen=True, slots=True)
class InvitationMails:
    """Written when they are sent: their tokens are nowhere else."""

    database: Database
    public_url: str

    def writers(self) -> dict[str, Writer]:
        return {KIND: self.invitation}

    async def invitation(self, details: Mapping[str, Any]) -> Mail | None:
        token, organization = new_token(), UUID(details["organization_id"])
        async with self.database.write() as session:
            repository = InvitationRepository(session, organization)
            if not await repository.set_digest(UUID(details["invitation_id"]), digest(token, KIND)):
                return None
            name = await MemberRepository(session, organization).organization_name()
        # Behind '#': browsers keep it to themselves, and it is in nobody's log.
        link = f"{self.public_url}/{KIND}#token={token}"
        return Mail(details["email"], "An invitation", INVITATION.format(organization=name, link=link))
