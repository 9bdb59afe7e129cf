"""Mail: ordered in the transaction of what it tells of, sent after COMMIT, again where that failed, by one worker."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from app.platform.mail import Mail, order_mail
from app.platform.mail.ports import Postman, postman_of
from app.platform.mail.sender import MailSender
from app.platform.postgres import Database
from app.resources import database_options
from tests.support.api import api_settings, connected, create_database, in_database
from tests.support.mailbox import Mailbox, mailbox
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAME = "mail"


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def database(services: DataServices) -> AsyncIterator[Database]:
    await create_database(services, NAME)
    opened = Database(database_options(api_settings(services, NAME)))
    await opened.start()
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def box() -> AsyncIterator[Mailbox]:
    async with mailbox() as opened:
        yield opened


async def greeting(details: Mapping[str, Any]) -> Mail | None:
    return Mail(details["to"], "Greetings", f"Grüße an {details['to']}") if details["to"] else None


def sender_to(database: Database, postman: Postman) -> MailSender:
    return MailSender(database, postman, "Headroom <headroom@example.com>", {"greeting": greeting})


async def order(database: Database, to: str | None = None, kind: str = "greeting") -> str:
    to = f"{uuid4().hex}@example.com" if to is None else to
    async with database.write() as session:
        await order_mail(session, kind, to=to)
    return to


async def send_all(sender: MailSender) -> None:
    while await sender.send_next():
        pass


async def make_due(services: DataServices) -> None:
    async with connected(in_database(services.primary_dsn, NAME)) as connection:
        await connection.execute("UPDATE mail_orders SET due_at = now()")


async def orders(services: DataServices) -> list[tuple[int, str | None]]:
    async with connected(in_database(services.primary_dsn, NAME)) as connection:
        rows = await connection.fetch("SELECT attempts, failed_because FROM mail_orders")
        await connection.execute("DELETE FROM mail_orders WHERE failed_because IS NOT NULL")
    return [tuple(row) for row in rows]


async def test_what_is_ordered_is_sent_and_the_order_gone(
    services: DataServices, database: Database, box: Mailbox
) -> None:
    to = await order(database)
    await send_all(sender_to(database, postman_of(box.url)))
    [mail] = box.to(to)
    assert mail.get_content().strip() == f"Grüße an {to}"
    assert mail["Message-ID"].endswith("@example.com>")
    assert await orders(services) == []


async def test_what_is_rolled_back_sends_nothing(database: Database, box: Mailbox) -> None:
    async with database.write() as session:
        await order_mail(session, "greeting", to="nobody@example.com")
        await session.rollback()
    await send_all(sender_to(database, postman_of(box.url)))
    assert box.mails == []


async def test_a_busy_server_gets_it_again_later(services: DataServices, database: Database, box: Mailbox) -> None:
    to, sender = await order(database), sender_to(database, postman_of(box.url))
    box.answers = ["451 busy", "451 busy"]
    for _ in range(3):
        assert box.to(to) == []
        await send_all(sender)
        await make_due(services)
    assert len(box.to(to)) == 1
    assert await orders(services) == []


async def test_a_server_that_is_away_gets_it_when_it_is_back(
    services: DataServices, database: Database, box: Mailbox
) -> None:
    to = await order(database)
    await send_all(sender_to(database, postman_of("smtp://127.0.0.1:1")))
    await make_due(services)
    await send_all(sender_to(database, postman_of(box.url)))
    assert len(box.to(to)) == 1


async def test_what_is_refused_for_good_is_kept_for_people_to_see(
    services: DataServices, database: Database, box: Mailbox
) -> None:
    await order(database)
    box.answers = ["550 no such mailbox"]
    await send_all(sender_to(database, postman_of(box.url)))
    assert await orders(services) == [(1, "status 550")]


async def test_a_kind_that_this_release_does_not_know_is_left_for_another(
    services: DataServices, database: Database, box: Mailbox
) -> None:
    await order(database, kind="of tomorrow")
    await send_all(sender_to(database, postman_of(box.url)))
    assert await orders(services) == [(1, None)]
    async with connected(in_database(services.primary_dsn, NAME)) as connection:
        await connection.execute("DELETE FROM mail_orders")


async def test_where_there_is_nothing_to_say_nothing_is_sent(
    services: DataServices, database: Database, box: Mailbox
) -> None:
    await order(database, to="")
    await send_all(sender_to(database, postman_of(box.url)))
    assert box.mails == []
    assert await orders(services) == []


async def test_of_four_workers_one_sends_each(database: Database, box: Mailbox) -> None:
    for _ in range(20):
        await order(database)
    await asyncio.gather(*(send_all(sender_to(database, postman_of(box.url))) for _ in range(4)))
    assert len(box.mails) == len({mail["To"] for mail in box.mails}) == 20


async def test_control_a_worker_that_dies_before_it_says_so_leaves_the_order_for_another(
    services: DataServices, database: Database, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: the two mails carry the same Message-ID."""

    async def die(*_: object) -> None:
        raise asyncio.CancelledError

    to, sender = await order(database), sender_to(database, postman_of(box.url))
    with monkeypatch.context() as patch:
        patch.setattr("app.platform.mail.outbox.done", die)
        with pytest.raises(asyncio.CancelledError):
            await sender.send_next()
    assert not await sender.send_next()  # as long as the lease lasts
    await make_due(services)
    await send_all(sender)
    first, second = box.to(to)
    assert first["Message-ID"] == second["Message-ID"]


async def test_in_development_mails_are_files(database: Database, tmp_path: Path) -> None:
    to = await order(database)
    await send_all(sender_to(database, postman_of(f"file:{tmp_path}/mail")))
    [file] = (tmp_path / "mail").glob("*.eml")
    assert to in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("url", ["", "http://mail.example.com", "file:"])
async def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="mail URL"):
        postman_of(url)
