"""Carries out the orders of mail, one after the other, as long as there are some."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from prometheus_client import Counter
from sqlalchemy.exc import DBAPIError

from app.platform.mail import outbox
from app.platform.mail.outbox import MOST_ATTEMPTS, Order
from app.platform.mail.ports import Mail, MailNotSent, Postman
from app.platform.postgres import Database
from app.platform.postgres.errors import DatabaseError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5

MAILS = Counter("mails_total", "Orders of mail that were worked on, by kind and outcome", ["kind", "outcome"])

# Writes the mail of one kind; None where there is none to send (any more), say since the address is nobody's.
Writer = Callable[[Mapping[str, Any]], Awaitable[Mail | None]]


class MailSender:
    def __init__(self, database: Database, postman: Postman, sender: str, writers: Mapping[str, Writer]) -> None:
        self._database = database
        self._postman = postman
        self._sender = sender
        self._writers = writers

    def use(self, postman: Postman) -> None:
        """From the next mail on: its password was changed."""
        self._postman = postman

    async def run(self, stopping: asyncio.Event) -> None:
        """Whatever becomes of the servers."""
        while not stopping.is_set():
            try:
                while not stopping.is_set() and await self.send_next():
                    pass
            except (DatabaseError, DBAPIError, OSError):
                logger.warning("the orders of mail can't be read now", exc_info=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await stopping.wait()

    async def send_next(self) -> bool:
        """False where nothing is due."""
        async with self._database.write() as session:
            order = await outbox.claim(session)
        if order is None:
            return False
        try:
            await self._carry_out(order)
        except MailNotSent as error:
            await self._failed(order, error)
        else:
            async with self._database.write() as session:
                await outbox.done(session, order)
        return True

    async def _carry_out(self, order: Order) -> None:
        writer = self._writers.get(order.kind)
        if writer is None:
            raise MailNotSent("unknown kind")  # of a later release, perhaps, whose worker is on its way
        mail = await writer(order.details)
        if mail is not None:
            await self._postman.send(mail.message(self._sender, order.id))
        MAILS.labels(order.kind, "dropped" if mail is None else "sent").inc()

    async def _failed(self, order: Order, error: MailNotSent) -> None:
        over = error.final or order.attempts >= MOST_ATTEMPTS
        MAILS.labels(order.kind, "failed" if over else "postponed").inc()
        logger.warning("mail %s was not sent: %s%s", order.id, error, "; given up" if over else "")
        async with self._database.write() as session:
            if over:
                await outbox.give_up(session, order, str(error))
            else:
                await outbox.postpone(session, order)
