"""The worker: `python -m app.worker`. What goes on beside the requests: mail is sent, what is past its time forgotten,
and what was sealed under a key of before is sealed anew.

Any number may run side by side. SIGTERM ends it after the mail that is being sent; whatever is cut off is done again.
"""

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from prometheus_client import start_http_server
from sqlalchemy.exc import DBAPIError

from app.features.identity.housekeeping import forget_the_past
from app.features.identity.mails import IdentityMails
from app.features.identity.resealing import seal_anew
from app.features.organizations.invitation_service import InvitationMails
from app.platform.audit import AuditTrail
from app.platform.mail.ports import postman_of
from app.platform.mail.sender import MailSender
from app.platform.postgres import Database
from app.platform.postgres.errors import DatabaseError
from app.platform.security.sealing import Sealer
from app.platform.security.secrets import SecretFiles
from app.platform.telemetry.logs import configure_logging
from app.resources import database_options
from app.rotation import Keyrings, secret_watch
from app.settings import Settings

logger = logging.getLogger(__name__)

POOL_SIZE = 2
FORGET_SECONDS = 600.0
SEAL_SECONDS = 60.0
GOODBYE_SECONDS = 15.0


@asynccontextmanager
async def open_database(settings: Settings, rings: Keyrings) -> AsyncIterator[Database]:
    """Of the primary alone, with few connections: a worker does one thing at a time. What it records is signed."""
    options = replace(database_options(settings), pool_size=POOL_SIZE, pool_overflow=0, replica_urls=())
    database = Database(options, before_commit=(AuditTrail(rings.audit, enabled=settings.audit_enabled),))
    await database.start()
    try:
        yield database
    finally:
        await database.aclose()


def mail_sender(settings: Settings, database: Database) -> MailSender:
    public_url = settings.public_url.rstrip("/")
    writers = IdentityMails(database, public_url).writers() | InvitationMails(database, public_url).writers()
    return MailSender(database, postman_of(settings.mail_url.get_secret_value()), settings.mail_sender, writers)


async def forget(database: Database) -> None:
    async with database.write() as session:
        await forget_the_past(session)


async def again_and_again(work: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Without a database it is done the next time."""
    while True:
        with suppress(DatabaseError, DBAPIError, OSError):
            await work()
        await asyncio.sleep(seconds)


def rotation_of(settings: Settings, rings: Keyrings, database: Database, sender: MailSender) -> SecretFiles:
    """As that of the service: the worker reaches the primary alone, and the server of mail."""
    return secret_watch(
        settings,
        lambda now: database.use_credentials(now.database_url.get_secret_value(), ()),
        rings.follow,
        lambda now: sender.use(postman_of(now.mail_url.get_secret_value())),
    )


async def work(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    rings = Keyrings.of(settings)
    async with open_database(settings, rings) as database:
        sender = mail_sender(settings, database)
        tasks = [
            asyncio.create_task(sender.run(stopping)),
            asyncio.create_task(again_and_again(partial(forget, database), FORGET_SECONDS)),
            asyncio.create_task(again_and_again(partial(seal_anew, database, Sealer(rings.sealing)), SEAL_SECONDS)),
            asyncio.create_task(rotation_of(settings, rings, database, sender).run()),
        ]
        logger.info("the worker works")
        await asyncio.wait([asyncio.create_task(stopping.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(tasks[:1], timeout=GOODBYE_SECONDS)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.worker", description="Sends mail, and tidies up.")
    parser.add_argument("--pid-file", type=Path, help="to write the process id to")
    return parser.parse_args()


def main() -> None:
    arguments, settings = parse(), Settings()
    if arguments.pid_file is not None:
        arguments.pid_file.write_text(f"{os.getpid()}\n")
    configure_logging(settings.log_level, settings.log_format)
    server, thread = start_http_server(settings.worker_port, settings.worker_host)
    try:
        asyncio.run(work(settings))
    finally:
        server.shutdown()
        thread.join()


if __name__ == "__main__":
    main()
