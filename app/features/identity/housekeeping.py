"""What is past its time and of no use to anybody."""

from app.features.identity.credential_repository import CredentialRepository
from app.features.identity.session_repository import SessionRepository
from app.platform.postgres import WriteSession


async def forget_the_past(session: WriteSession) -> None:
    await SessionRepository(session).forget()
    await CredentialRepository(session).forget_tokens()
