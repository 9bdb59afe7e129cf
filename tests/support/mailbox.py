"""A real SMTP server that keeps what it is sent, and can be told to be busy or to refuse."""

import asyncio
import email
import email.policy
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session
from fastapi import FastAPI

from app.features.identity.mails import IdentityMails
from app.platform.mail.ports import postman_of
from app.platform.mail.sender import MailSender


class Mailbox:
    """`answers`: what to say to the next mails, before they are taken again."""

    def __init__(self) -> None:
        self.url = ""
        self.mails: list[EmailMessage] = []
        self.answers: list[str] = []

    def to(self, address: str) -> list[EmailMessage]:
        return [mail for mail in self.mails if mail["To"] == address]

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.answers:
            return self.answers.pop(0)
        content = envelope.original_content or b""
        self.mails.append(email.message_from_bytes(content, policy=email.policy.default))  # type: ignore[arg-type]
        return "250 OK"


async def mails(app: FastAPI, box: Mailbox, email: str) -> list[str]:
    """The texts of all that was sent to the address, once nothing is waiting any more."""
    database = app.state.resources.database
    writers = IdentityMails(database, "https://pages.example.com").writers()
    sender = MailSender(database, postman_of(box.url), "Headroom <headroom@example.com>", writers)
    while await sender.send_next():
        pass
    return [mail.get_content() for mail in box.to(email)]


async def token_for(app: FastAPI, box: Mailbox, email: str, purpose: str) -> str:
    """The newest one."""
    texts = await mails(app, box, email)
    tokens = [found for text in texts for found in re.findall(rf"/{purpose}#token=(\S+)", text)]
    return str(tokens[-1])


@asynccontextmanager
async def mailbox() -> AsyncIterator[Mailbox]:
    box = Mailbox()

    def protocol() -> Any:
        return SMTP(box, hostname="localhost")

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    box.url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield box
    finally:
        server.close()
