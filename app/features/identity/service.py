"""The rules of signing up and logging in."""

from uuid import UUID

from sqlalchemy.exc import IntegrityError

from app.features.identity.repository import IdentityRepository, Row
from app.features.identity.roles import SCOPES
from app.features.identity.schemas import Registration
from app.platform.audit import Actor, record
from app.platform.errors import Conflict, Unauthenticated
from app.platform.mail import order_mail
from app.platform.postgres import ReadSession, WriteSession
from app.platform.security.caller import Caller, Role
from app.platform.security.passwords import PasswordHasher
from app.platform.security.tokens import TokenIssuer

VERIFY = "verify-email"  # the kind of mail; its token's purpose


class EmailTaken(Conflict):
    slug = "email-taken"
    title = "The e-mail address is taken"


class WrongCredentials(Unauthenticated):
    slug = "wrong-credentials"
    title = "Wrong e-mail or password"


async def register(session: WriteSession, body: Registration, password_hash: str) -> Row:
    """Create an organization with its first person, who owns it. Raises `EmailTaken`.

    The password comes hashed, so that no connection is held while Argon2id works.
    """
    repository = IdentityRepository(session)
    try:
        organization_id = await repository.add_organization(body.organization)
        user_id = await repository.add_user(
            organization_id, email=body.email, full_name=body.full_name, role="owner", password_hash=password_hash
        )
    except IntegrityError:
        raise EmailTaken() from None
    record(session, Actor(organization_id, user_id), "organization.created", organization_id)
    await order_mail(session, VERIFY, email=body.email)
    user = await repository.user(organization_id, user_id)
    assert user is not None
    return user


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
    )


async def profile(session: ReadSession, caller: Caller) -> Row:
    user = await IdentityRepository(session).user(caller.organization_id, caller.user_id)
    if user is None:
        raise Unauthenticated("The account of this token is gone.")
    return user
