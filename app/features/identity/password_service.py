"""The rules of passwords, and of the tokens that are sent to who has lost theirs."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from app.features.identity import session_service
from app.features.identity.credential_repository import CredentialRepository
from app.features.identity.repository import IdentityRepository, Row
from app.features.identity.service import VERIFY
from app.platform.audit import Actor, record
from app.platform.errors import DomainError
from app.platform.mail import order_mail
from app.platform.postgres import ReadSession, WriteSession
from app.platform.security.single_use import digest, new_token

RESET = "password-reset"
LASTS = {VERIFY: timedelta(days=3), RESET: timedelta(minutes=30)}
MOST_AN_HOUR = 5  # mails of one kind to one user, whoever asks for them
REMIND = "verify-email-again"
MOST_REMINDERS_AN_HOUR = 1  # beside mails that were asked for


class TokenNotGood(DomainError):
    slug = "token-not-good"
    title = "The token is not good, or no longer"


async def order_verification(session: WriteSession, email: str) -> None:
    """For an address that may be anybody's or nobody's: what there is to do is found out where nobody can watch."""
    await order_mail(session, VERIFY, email=email)


async def order_reset(session: WriteSession, email: str) -> None:
    await order_mail(session, RESET, email=email)


async def order_reminders(session: WriteSession, emails: Collection[str]) -> None:
    for email in emails:
        await order_mail(session, REMIND, email=email)


async def issue_token(session: WriteSession, email: str, purpose: str, most: int = MOST_AN_HOUR) -> str | None:
    """For the mail to an address; None where it is nobody's, or nothing is to be done, or they have had enough."""
    user = await IdentityRepository(session).user_by_email(email)
    if user is None or user["disabled_at"] is not None:
        return None
    if purpose == VERIFY and user["email_verified_at"] is not None:
        return None
    repository, token = CredentialRepository(session), new_token()
    if await repository.tokens_since(user["id"], purpose, timedelta(hours=1)) >= most:
        return None
    await repository.add_token(user["id"], purpose, digest(token, purpose), LASTS[purpose])
    return token


async def contest(session: WriteSession, email: str, nobodys_hash: str) -> str | None:
    """For the mail to an address that was registered again: a token for a new password, or None as above.

    Where it was never verified, the password is void, which may be that of a stranger who came first: else the owner
    who follows an older mail would verify it for them.
    """
    user = await IdentityRepository(session).user_by_email(email)
    if user is not None and not user["email_verified"]:
        repository = CredentialRepository(session)
        await repository.set_password(user["id"], nobodys_hash)
        await repository.drop_tokens(user["id"], VERIFY)
    return await issue_token(session, email, RESET)


async def verify_email(session: WriteSession, token: str) -> None:
    """Raises `TokenNotGood`."""
    repository = CredentialRepository(session)
    user_id = await repository.use_token(VERIFY, digest(token, VERIFY))
    if user_id is None:
        raise TokenNotGood()
    await repository.set_verified(user_id)
    user = await IdentityRepository(session).user_by_id(user_id)
    assert user is not None
    record(session, Actor(user["organization_id"], user_id), "user.email_verified", user_id)


async def reset_owner(session: ReadSession, token: str) -> Row | None:
    """Whose password the token would change. None is not refused yet: it may be a request that was carried out before,
    which is known where its `Idempotency-Key` is claimed.
    """
    user_id = await CredentialRepository(session).token_owner(RESET, digest(token, RESET))
    return None if user_id is None else await IdentityRepository(session).user_by_id(user_id)


async def reset(session: WriteSession, token: str, password_hash: str) -> None:
    """Whoever reads the mails of the address has shown that it is theirs. Raises `TokenNotGood`."""
    repository = CredentialRepository(session)
    user_id = await repository.use_token(RESET, digest(token, RESET))
    user = None if user_id is None else await IdentityRepository(session).user_by_id(user_id)
    if user is None:
        raise TokenNotGood()
    await repository.set_verified(user["id"])
    await _set_password(session, user["organization_id"], user["id"], user["email"], password_hash)


async def change(session: WriteSession, user: Row, password_hash: str) -> None:
    await _set_password(session, user["organization_id"], user["id"], user["email"], password_hash)


async def account(session: WriteSession, user_id: UUID) -> Row:
    found = await IdentityRepository(session).user_by_id(user_id)
    assert found is not None
    return found


async def rehash(session: WriteSession, account: Row, password_hash: str) -> Row:
    """The same password under today's parameters, unless it was changed meanwhile."""
    repository = CredentialRepository(session)
    if await repository.set_password(account["id"], password_hash, instead_of=account["password_hash"]):
        return {**account, "password_hash": password_hash}
    return account


async def _set_password(
    session: WriteSession, organization_id: UUID, user_id: UUID, email: str, password_hash: str
) -> None:
    """Ends whatever the old password had opened, and tells the owner."""
    repository = CredentialRepository(session)
    await repository.set_password(user_id, password_hash)
    await repository.drop_tokens(user_id, RESET)
    await session_service.end_all(session, organization_id, user_id, "password changed")
    record(session, Actor(organization_id, user_id), "user.password_changed", user_id)
    await order_mail(session, "password-changed", email=email)
