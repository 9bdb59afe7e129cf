"""The application in this process or behind a socket, the database it works on, and the people who call it."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import asyncpg
import httpx
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine, event

from app.features.identity.roles import SCOPES
from app.main import create_app
from app.platform.postgres.base import uuid7
from app.platform.postgres.server import Server
from app.platform.resilience.protocol import Protocol
from app.platform.security.caller import STANDARD_TIER, Role
from app.platform.security.tokens import TokenIssuer
from app.platform.telemetry.context import request_context
from app.resources import signing_keys
from app.settings import Settings
from tests.support.redis_server import eventually
from tests.support.stack import DataServices, as_asyncpg, wait_until

PROJECT = Path(__file__).parents[2]
API = "/api/v1"
# Of no password.
SOME_HASH = "$argon2id$v=19$m=8,t=1,p=1$miCegwejywpnX0dqNL3kdg$cF7to35B0ZtMGwXd+9VFDvJNSVSrZ6zFt37FcLIpcd0"
REPLAYED = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"


def in_database(dsns: str, name: str) -> str:
    """The same servers, another database."""
    return dsns.replace("/headroom,", f"/{name},").removesuffix("/headroom") + f"/{name}"


def api_settings(services: DataServices, database: str, **changes: Any) -> Settings:
    environment = services.environment
    values = {
        "environment": "test",
        "instance_name": "test",
        "log_level": "error",
        "rate_limit_scale": 10_000,
        "database_url": in_database(environment["DATABASE_URL"], database),
        "database_replica_urls": in_database(environment["DATABASE_REPLICA_URLS"], database),
        "database_statement_cache_size": environment["DATABASE_STATEMENT_CACHE_SIZE"],
        "redis_url": environment["REDIS_URL"],
        # A machine that is busy with other tests is neither a dead Redis nor a slow database.
        "redis_timeout_ms": 500,
        "request_timeout_seconds": 60,
        "database_connect_timeout_ms": 20_000,
        "database_pool_timeout_ms": 20_000,
        "database_statement_timeout_ms": 30_000,
        "database_lock_timeout_ms": 30_000,
        "admission_min_in_flight": 400,
    }
    return Settings(_env_file=None, **values | changes)


def environment_of(settings: Settings) -> dict[str, str]:
    """For a process of its own that is to use the same servers."""
    return {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "DATABASE_REPLICA_URLS": ",".join(url.get_secret_value() for url in settings.database_replica_urls),
        "DATABASE_STATEMENT_CACHE_SIZE": str(settings.database_statement_cache_size),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "RATE_LIMIT_SCALE": str(settings.rate_limit_scale),
    }


async def create_database(services: DataServices, name: str) -> None:
    """With the tables of the newest revision; the replicas have it too when this returns."""
    async with connected(services.primary_dsn) as connection:
        await connection.execute(f'CREATE DATABASE "{name}"')
    migrate = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", "upgrade", "head"),
        cwd=PROJECT,
        env={**os.environ, "DATABASE_URL": as_asyncpg(in_database(services.primary_dsn, name))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await migrate.communicate()
    assert migrate.returncode == 0, output.decode()
    await caught_up(services)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        yield connection
    finally:
        await connection.close()


async def caught_up(services: DataServices) -> None:
    """Wait until every replica has replayed what is committed on the primary now."""
    async with connected(services.primary_dsn) as primary:
        # Not the insert position: what no commit waits for (a pruned page) may lie there unsent.
        position = await primary.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    for dsn in services.replica_dsns:
        async with connected(dsn) as replica:
            await eventually(partial(replica.fetchval, REPLAYED, position))


@dataclass(frozen=True, slots=True)
class Person:
    user_id: UUID
    organization_id: UUID
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True)
class People:
    """Makes them straight in the database: to register takes a password's hashing."""

    services: DataServices | None  # for what has to be on the replicas
    dsn: str
    settings: Settings

    async def join(self, role: Role = Role.OWNER, organization_id: UUID | None = None) -> Person:
        """A new member of that organization, or the first of a new one."""
        user_id, organization = uuid7(), organization_id or uuid7()
        async with connected(self.dsn) as connection, connection.transaction():
            if organization_id is None:
                await connection.execute("INSERT INTO organizations (id, name) VALUES ($1, 'Test')", organization)
            await connection.execute(
                "INSERT INTO users (id, organization_id, email, full_name, role, password_hash)"
                " VALUES ($1, $2, $3, 'A Person', $4, $5)",
                *(user_id, organization, f"{user_id.hex}@example.com", role.value, SOME_HASH),
            )
        return Person(user_id, organization, self.token(user_id, organization, role))

    async def open_session(self, person: Person) -> UUID:
        """Another one than that of the token."""
        session_id = uuid7()
        async with connected(self.dsn) as connection:
            await connection.execute(
                "INSERT INTO sessions (id, organization_id, user_id, salt, token_hash, expires_at, device, address)"
                " VALUES ($1, $2, $3, '', '', now() + interval '1 hour', 'a test', '127.0.0.1')",
                *(session_id, person.organization_id, person.user_id),
            )
        return session_id

    async def fetch(self, query: str, *arguments: Any) -> Any:
        """One value, from the primary."""
        async with connected(self.dsn) as connection:
            return await connection.fetchval(query, *arguments)

    def token(self, user_id: UUID, organization_id: UUID, role: Role) -> str:
        return self._issue(user_id, organization_id, role, SCOPES[role])

    def token_with(self, person: Person, scopes: Iterable[str]) -> str:
        """For the same person, with just these scopes."""
        return self._issue(person.user_id, person.organization_id, Role.OWNER, scopes)

    def token_of_tier(self, person: Person, tier: str) -> str:
        """As the organization's owner has it in that tier."""
        return self._issue(person.user_id, person.organization_id, Role.OWNER, SCOPES[Role.OWNER], tier)

    def _issue(
        self, user_id: UUID, organization_id: UUID, role: Role, scopes: Iterable[str], tier: str = STANDARD_TIER
    ) -> str:
        issuer = TokenIssuer(
            signing_keys(self.settings),
            issuer=self.settings.jwt_issuer,
            audience=self.settings.jwt_audience,
            lifetime_seconds=900,
        )
        return issuer.issue(
            user_id=user_id,
            organization_id=organization_id,
            role=role,
            scopes=scopes,
            session_id=uuid7(),
            epoch=0,
            tier=tier,
        ).token

    async def own_items(self, person: Person, count: int, *, checkouts: int = 0) -> list[UUID]:
        """Items named by their number, each with returned checkouts, readable on every replica when this returns."""
        ids = [uuid7() for _ in range(count)]
        items = [
            (person.organization_id, id_, f"T-{number:05d}", f"Item {number:05d}", "camera")
            for number, id_ in enumerate(ids)
        ]
        history = [(person.organization_id, uuid7(), id_, person.user_id) for id_ in ids for _ in range(checkouts)]
        async with connected(self.dsn) as connection:
            await connection.executemany(
                "INSERT INTO equipment (organization_id, id, asset_tag, name, category) VALUES ($1, $2, $3, $4, $5)",
                items,
            )
            await connection.executemany(
                "INSERT INTO checkouts (organization_id, id, equipment_id, user_id, due_at, returned_at)"
                " VALUES ($1, $2, $3, $4, now(), now())",
                history,
            )
        await caught_up(self.services)
        return ids


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[FastAPI]:
    """The application with its resources open: httpx' transport doesn't run a lifespan."""
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def in_process(
    app: FastAPI, person: Person | None = None, *, address: str = "127.0.0.1"
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that runs in this event loop; without a person it is anonymous."""
    transport = httpx.ASGITransport(app, client=(address, 12345))
    headers = person.headers if person else {}
    async with httpx.AsyncClient(transport=transport, base_url="http://headroom", headers=headers) as client:
        yield client


@asynccontextmanager
async def over_socket(url: str, person: Person | None = None) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=200)
    headers = person.headers if person else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=30) as client:
        yield client


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The URL of the application behind our server and a real socket, in a thread with a loop of its own."""
    config = uvicorn.Config(app, port=0, http=Protocol, log_config=None, access_log=False, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="uvicorn", daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "uvicorn")
        [listener] = server.servers[0].sockets
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


def new_app(services: DataServices, database: str, **changes: Any) -> FastAPI:
    return create_app(api_settings(services, database, **changes))


@contextmanager
def recorded_sql() -> Iterator[list[str]]:
    """The statements that requests send meanwhile; not those of the monitor, which belong to none."""
    statements: list[str] = []

    def record(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if request_context.get(None) is not None:
            statements.append(statement)

    def fetched(server: Server, connection: Any, sql: str, arguments: Any) -> Any:
        record(None, None, sql)
        return fetch_on(server, connection, sql, arguments)

    fetch_on = Server.fetch_on
    event.listen(Engine, "before_cursor_execute", record)
    try:
        with patch.object(Server, "fetch_on", fetched):
            yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", record)
