"""The rules of signing up and logging in."""

from datetime import UTC, datetime
from uuid import UUID

from app.features.identity.repository import IdentityRepository, Row
from app.features.identity.roles import SCOPES
from app.features.identity.schemas import Registration
from app.platform.audit import Actor, record
from app.platform.errors import Conflict, Unauthenticated
from app.platform.mail import order_mail
from app.platform.postgres import ReadSession, WriteSession
from app.platform.postgres.base import uuid7
from app.platform.security.caller import Caller, Role
from app.platform.security.passwords import PasswordHasher
from app.platform.security.tokens import TokenIssuer

VERIFY = "verify-email"  # the kind of mail; its token's purpose
TAKEN = "address-taken"


class EmailTaken(Conflict):
    slug = "email-taken"
    title = "The e-mail address is taken"


class WrongCredentials(Unauthenticated):
    slug = "wrong-credentials"
    title = "Wrong e-mail or password"


async def register(session: WriteSession, body: Registration, password_hash: str, *, discreet: bool) -> Row:
    """Create an organization with its first person, who owns it. Raises `EmailTaken`, unless it is to be `discreet`.

    Then a taken address is answered as a free one is, after the same statements, and whose it is gets a mail.
    The password comes hashed, so that no connection is held while Argon2id works.
    """
    repository, user_id, organization_id, now = IdentityRepository(session), uuid7(), uuid7(), datetime.now(UTC)
    person = {"id": user_id, "organization_id": organization_id, "email": body.email, "full_name": body.full_name}
    person |= {"role": Role.OWNER.value, "created_at": now}
    added = await repository.add_owner(body.organization, **person, password_hash=password_hash)
    account = await repository.user_by_email(body.email)
    assert account is not None
    if added:
        record(session, Actor(organization_id, user_id), "organization.created", organization_id)
    elif discreet:
        record(session, Actor(account["organization_id"]), "user.registered_again", account["id"])
    else:
        raise EmailTaken()
    await order_mail(session, VERIFY if added else TAKEN, email=body.email)
    return person | {"organization": body.organization, "email_verified": False}


async def find_account(session: ReadSession, email: str, address: str) -> Row | None:
    """With whether they have logged in from the address before (`known_address`)."""
    return await IdentityRepository(session).user_by_email(email, address)


async def authenticate(account: Row | None, password: str, passwords: PasswordHasher) -> Row:
    """Raises `WrongCredentials`, after the same work, whether the account or the password is wrong."""
    if account is None:
        await passwords.verify_absent(password)
        raise WrongCredentials()
    matches = await passwords.verify(account["password_hash"], password)
    if not matches or account["disabled_at"] is not None:
        raise WrongCredentials()
    return account


async def confirmed(session: ReadSession, caller: Caller, password: str, passwords: PasswordHasher) -> Row:
    """The caller's account, by their password. Raises `WrongCredentials`."""
    return await authenticate(await IdentityRepository(session).user_by_id(caller.user_id), password, passwords)


def issue_token(account: Row, session_id: UUID, issuer: TokenIssuer) -> tuple[str, int]:
    """An access token for the session of an account, and its lifetime in seconds."""
    role = Role(account["role"])
    return issuer.issue(
        user_id=account["id"],
        organization_id=account["organization_id"],
        role=role,
        scopes=SCOPES[role],
        session_id=session_id,
        epoch=account["token_epoch"],
        tier=account["tier"],
    )


async def profile(session: ReadSession, caller: Caller) -> Row:
    user = await IdentityRepository(session).user(caller.organization_id, caller.user_id)
    if user is None:
        raise Unauthenticated("The account of this token is gone.")
    return user
