"""What the mails of this feature say. They are written when they are sent: their tokens are nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.features.identity import password_service as service
from app.features.identity.service import VERIFY
from app.platform.mail import Mail
from app.platform.mail.sender import Writer
from app.platform.postgres import Database

VERIFICATION = """Hello,

someone, you most likely, has signed up with this address. To show that it is yours, follow this within three days:

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
        return {VERIFY: self.verification, service.RESET: self.reset, "password-changed": self.changed}

    async def verification(self, details: Mapping[str, Any]) -> Mail | None:
        text = await self._with_token(details["email"], VERIFY, VERIFICATION)
        return None if text is None else Mail(details["email"], "Is this your address?", text)

    async def reset(self, details: Mapping[str, Any]) -> Mail | None:
        text = await self._with_token(details["email"], service.RESET, RESET)
        return None if text is None else Mail(details["email"], "A new password", text)

    async def changed(self, details: Mapping[str, Any]) -> Mail | None:
        text = CHANGED.format(link=f"{self.public_url}/{service.RESET}")
        return Mail(details["email"], "Your password was changed", text)

    async def _with_token(self, email: str, purpose: str, text: str) -> str | None:
        async with self.database.write() as session:
            token = await service.issue_token(session, email, purpose)
        # Behind '#': browsers keep it to themselves, and it is in nobody's log.
        return None if token is None else text.format(link=f"{self.public_url}/{purpose}#token={token}")
