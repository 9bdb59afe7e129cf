"""How mail leaves: through an SMTP server, or, in development, as files in a folder."""

import asyncio
import os
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiosmtplib

SEND_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Mail:
    recipient: str
    subject: str
    text: str

    def message(self, sender: str, order_id: UUID) -> EmailMessage:
        """The order names the message: one that is sent twice, since an answer was lost, can be told by that."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = sender, self.recipient, self.subject
        message["Date"] = formatdate(usegmt=True)
        message["Message-ID"] = f"<{order_id}@{sender.rpartition('@')[2].rstrip('>')}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: holiday notices are not to answer
        message.set_content(self.text)
        return message


class MailNotSent(Exception):
    """Not now; trying again may help, unless it is `final`."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Postman(Protocol):
    async def send(self, message: EmailMessage) -> None:
        """Raises `MailNotSent`."""
        ...


class SmtpPostman:
    """`smtp://user:password@host:port` with STARTTLS where the server has it, `smtps://` with TLS from the start.

    A password is never sent in clear.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._tls = parts.hostname or "localhost", parts.scheme == "smtps"
        self._port = parts.port or (465 if self._tls else 587)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None

    async def send(self, message: EmailMessage) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await aiosmtplib.send(
                    message,
                    hostname=self._host,
                    port=self._port,
                    username=self._user,
                    password=self._password,
                    use_tls=self._tls,
                    start_tls=True if self._user and not self._tls else None,
                    timeout=SEND_SECONDS,
                )
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise MailNotSent("refused", final=all(each.code >= 500 for each in error.recipients)) from error
        except aiosmtplib.SMTPResponseException as error:
            raise MailNotSent(f"status {error.code}", final=error.code >= 500) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise MailNotSent(type(error).__name__) from error


class FilePostman:
    """One file for each message, for people and tests to read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, message: EmailMessage) -> None:
        try:
            await asyncio.to_thread(self._write, message)
        except OSError as error:
            raise MailNotSent(type(error).__name__) from error

    def _write(self, message: EmailMessage) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{str(message['Message-ID']).strip('<>').partition('@')[0]}.eml"
        partial = self._folder / f".{name}"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(bytes(message))
        partial.rename(self._folder / name)


def postman_of(url: str) -> Postman:
    """By the scheme: `smtp`, `smtps` or `file` (a path, `file:./mail` or `file:///var/mail`). Raises ValueError."""
    scheme, _, rest = url.partition(":")
    if scheme in ("smtp", "smtps"):
        return SmtpPostman(url)
    if scheme == "file" and rest:
        return FilePostman(Path(rest.removeprefix("//")))
    raise ValueError("a mail URL begins with smtp:, smtps: or file:")
