"""The worker: `python -m app.worker`. What goes on beside the requests: mail is sent, what is past its time forgotten.

Any number may run side by side. SIGTERM ends it after the mail that is being sent; whatever is cut off is done again.
"""

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from prometheus_client import start_http_server
from sqlalchemy.exc import DBAPIError

from app.features.identity.housekeeping import forget_the_past
from app.features.identity.mails import IdentityMails
from app.features.organizations.invitation_service import InvitationMails
from app.platform.mail.ports import postman_of
from app.platform.mail.sender import MailSender
from app.platform.postgres import Database
from app.platform.postgres.errors import DatabaseError
from app.platform.telemetry.logs import configure_logging
from app.resources import database_options
from app.settings import Settings

logger = logging.getLogger(__name__)

POOL_SIZE = 2
FORGET_SECONDS = 600.0
GOODBYE_SECONDS = 15.0


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Of the primary alone, with few connections: a worker does one thing at a time."""
    options = replace(database_options(settings), pool_size=POOL_SIZE, pool_overflow=0, replica_urls=())
    database = Database(options)
    await database.start()
    try:
        yield database
    finally:
        await database.aclose()


def mail_sender(settings: Settings, database: Database) -> MailSender:
    public_url = settings.public_url.rstrip("/")
    writers = IdentityMails(database, public_url).writers() | InvitationMails(database, public_url).writers()
    return MailSender(database, postman_of(settings.mail_url.get_secret_value()), settings.mail_sender, writers)


async def forget_again_and_again(database: Database) -> None:
    while True:
        with suppress(DatabaseError, DBAPIError, OSError):
            async with database.write() as session:
                await forget_the_past(session)
        await asyncio.sleep(FORGET_SECONDS)


async def work(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with open_database(settings) as database:
        tasks = [
            asyncio.create_task(mail_sender(settings, database).run(stopping)),
            asyncio.create_task(forget_again_and_again(database)),
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
