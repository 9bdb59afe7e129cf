"""What the mails of this feature say. They are written when they are sent: their tokens are nowhere else."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.features.identity import password_service as service
from app.features.identity.service import TAKEN, VERIFY
from app.platform.mail import Mail
from app.platform.mail.sender import Writer
from app.platform.postgres import Database
from app.platform.security.passwords import nobodys_hash

VERIFICATION = """Hello,

someone, you most likely, has signed up with this address. To show that it is yours, follow this within three days:

{link}

If it was not you, do nothing.
"""
ACCOUNT_THERE = """Hello,

someone, you most likely, has tried to sign up with this address, which has an account already. Log in with it; or, if
you don't know its password, set a new one by this within half an hour:

{link}

If it was not you, do nothing.
"""
RESET = """Hello,

someone wants a new password for the account with this address. If that is you, follow this within half an hour:

{link}

It works once. If it was not you, do nothing: your password stays as it is.
"""
CHANGED = """Hello,

the password of the account with this address was changed just now, and every session has ended.

If it was not you, ask for a new one at once: {link}
"""


@dataclass(frozen=True, slots=True)
class IdentityMails:
    """`public_url`: of the pages that take the tokens from the links, and send them to the API."""

    database: Database
    public_url: str

    def writers(self) -> dict[str, Writer]:
        return {
            VERIFY: self.verification,
            service.REMIND: self.reminder,
            service.RESET: self.reset,
            TAKEN: self.taken,
            "password-changed": self.changed,
        }

    async def verification(self, details: Mapping[str, Any], most: int = service.MOST_AN_HOUR) -> Mail | None:
        async with self.database.write() as session:
            token = await service.issue_token(session, details["email"], VERIFY, most)
        return self._mail(details, "Is this your address?", VERIFICATION, VERIFY, token)

    async def reminder(self, details: Mapping[str, Any]) -> Mail | None:
        return await self.verification(details, service.MOST_REMINDERS_AN_HOUR)

    async def reset(self, details: Mapping[str, Any]) -> Mail | None:
        async with self.database.write() as session:
            token = await service.issue_token(session, details["email"], service.RESET)
        return self._mail(details, "A new password", RESET, service.RESET, token)

    async def taken(self, details: Mapping[str, Any]) -> Mail | None:
        unknown = await asyncio.to_thread(nobodys_hash)
        async with self.database.write() as session:
            token = await service.contest(session, details["email"], unknown)
        return self._mail(details, "You have an account", ACCOUNT_THERE, service.RESET, token)

    async def changed(self, details: Mapping[str, Any]) -> Mail | None:
        text = CHANGED.format(link=f"{self.public_url}/{service.RESET}")
        return Mail(details["email"], "Your password was changed", text)

    def _mail(self, details: Mapping[str, Any], subject: str, text: str, page: str, token: str | None) -> Mail | None:
        if token is None:
            return None
        # Behind '#': browsers keep it to themselves, and it is in nobody's log.
        return Mail(details["email"], subject, text.format(link=f"{self.public_url}/{page}#token={token}"))
