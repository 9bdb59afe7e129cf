"""What lives as long as the process: opened in the lifespan, closed in reverse. Settings become plain values here."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from app.features.api_keys import service as keys_service
from app.features.identity import password_service
from app.features.identity.reminders import Reminders, reminders
from app.platform.audit import AuditKeys, AuditTrail
from app.platform.audit.checkpoints import Checkpoints
from app.platform.cache import ResponseCache
from app.platform.http import fleet_timeline
from app.platform.http.consistency import Consistency
from app.platform.http.idempotency import Idempotency
from app.platform.http.kept_answers import expire
from app.platform.http.pagination import CursorSigner
from app.platform.limits import RateLimiter
from app.platform.postgres import Commit, Database, DatabaseOptions
from app.platform.postgres.budget import Fleet
from app.platform.postgres.errors import DatabaseError, DatabaseUnavailable
from app.platform.postgres.tokens import ConsistencyTokens
from app.platform.redis import RedisClient, redis_from_url
from app.platform.resilience.background import in_background
from app.platform.resilience.breaker import CircuitBreaker
from app.platform.security import revocation_log, revocation_news
from app.platform.security.api_keys import REMEMBER_SECONDS, ApiKeys, FoundKey
from app.platform.security.key_folder import KeyFolder
from app.platform.security.password_policy import SHIPPED, BreachedPasswords, PasswordPolicy
from app.platform.security.passwords import PasswordHasher
from app.platform.security.refresh_tokens import RefreshTokens
from app.platform.security.revocation import Revocations
from app.platform.security.revocation_log import RevocationLog
from app.platform.security.sealing import Sealer
from app.platform.security.secrets import SecretFiles
from app.platform.security.tokens import SigningKeys, TokenIssuer, TokenVerifier
from app.platform.telemetry.context import current
from app.rotation import Keyrings, secret_watch
from app.settings import Settings

EXPIRY_SECONDS = 1.0
UNHEARD_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SessionLimits:
    idle_seconds: float
    absolute_seconds: float
    grace_seconds: float
    per_user: int


@dataclass(frozen=True, slots=True)
class Resources:
    database: Database
    redis: RedisClient
    cache: ResponseCache
    rate_limiter: RateLimiter
    consistency: Consistency
    idempotency: Idempotency
    cursors: CursorSigner
    passwords: PasswordHasher
    signing_keys: SigningKeys
    token_issuer: TokenIssuer
    token_verifier: TokenVerifier
    revocations: Revocations
    refresh_tokens: RefreshTokens
    session_limits: SessionLimits
    api_keys: ApiKeys
    password_policy: PasswordPolicy
    sealer: Sealer
    service_name: str
    verified_email_needed: bool
    reminders: Reminders


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Raises nothing when a server is away: the service starts, and serves what it can."""
    rings = Keyrings.of(settings)
    folder = key_folder(settings)
    keys = signing_keys(settings) if folder is None else folder.keys
    redis = redis_client(settings)
    cache = cache_of(redis, settings)
    rate_limiter = rate_limiter_of(redis, settings)
    positions = ConsistencyTokens(rings.signing)
    consistency = Consistency(
        redis,
        positions,
        enabled=settings.consistency_enabled,
        heard=lambda position: database.heard(position),
    )

    async def invalidate(commit: Commit) -> None:
        await cache.invalidate(commit.tags, commit.wal_position)

    async def remember(commit: Commit) -> None:
        if (caller_id := current().caller_id) is not None:
            await consistency.remember(caller_id, commit.wal_position)

    async def hear(commit: Commit) -> None:
        if revocation_log.TAG in commit.tags:
            await revocations.refresh()
            revocation_news.tell(redis)

    trail = AuditTrail(rings.audit, enabled=settings.audit_enabled)
    database = Database(database_options(settings), on_commit=(hear, invalidate, remember), before_commit=(trail,))
    revocations = revocations_of(database, settings)
    api_keys = api_keys_of(database, settings)
    reminding = reminders_of(database)
    await cache.start()
    try:
        async with in_background(
            rate_limiter.run(),
            revocation_news.listen(redis, revocations),
            watch(folder),
            api_keys.uses.run(),
            reminding.run(),
            checkpoints_of(database, rings.audit, settings),
            rotation_of(settings, rings, database, redis).run(),
            fleet_timeline.keep_exchanging(redis, database, positions),
        ):
            await fleet_timeline.exchange(redis, database, positions)
            await database.start()
            await revocations.start()
            await check_connections(database, settings)
            await forget_the_past(database)
            yield Resources(
                database=database,
                redis=redis,
                cache=cache,
                rate_limiter=rate_limiter,
                consistency=consistency,
                idempotency=Idempotency(rings.signing, enabled=settings.idempotency_enabled),
                cursors=CursorSigner(rings.signing),
                passwords=PasswordHasher(settings.password_hash_concurrency),
                signing_keys=keys,
                token_issuer=token_issuer_of(keys, settings),
                token_verifier=TokenVerifier(keys, issuer=settings.jwt_issuer, audience=settings.jwt_audience),
                revocations=revocations,
                refresh_tokens=RefreshTokens.keyed_by(rings.signing),
                session_limits=session_limits_of(settings),
                api_keys=api_keys,
                password_policy=PasswordPolicy(BreachedPasswords((SHIPPED, *settings.breached_passwords_files))),
                sealer=Sealer(rings.sealing),
                service_name=settings.service_name,
                verified_email_needed=settings.verified_email_needed,
                reminders=reminding,
            )
    finally:
        await revocations.aclose()
        await database.aclose()
        await rate_limiter.aclose()
        await cache.aclose()
        await redis.aclose()


def cache_of(redis: RedisClient, settings: Settings) -> ResponseCache:
    return ResponseCache(
        redis,
        max_entry_bytes=settings.cache_max_entry_bytes,
        memory_bytes=settings.cache_memory_bytes,
        enabled=settings.cache_enabled,
    )


def rate_limiter_of(redis: RedisClient, settings: Settings) -> RateLimiter:
    return RateLimiter(
        redis,
        scale=settings.rate_limit_scale,
        local_share=settings.rate_limit_local_share,
        enabled=settings.rate_limit_enabled,
        tiers=settings.rate_limit_tiers,
    )


def token_issuer_of(keys: SigningKeys, settings: Settings) -> TokenIssuer:
    return TokenIssuer(
        keys,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        lifetime_seconds=settings.access_token_seconds,
    )


def session_limits_of(settings: Settings) -> SessionLimits:
    return SessionLimits(
        idle_seconds=settings.session_idle_seconds,
        absolute_seconds=settings.session_absolute_seconds,
        grace_seconds=settings.refresh_grace_seconds,
        per_user=settings.sessions_per_user,
    )


async def check_connections(database: Database, settings: Settings) -> None:
    """Raises `ConnectionBudgetExceeded`; a database that is away is asked at the next start."""
    with suppress(DatabaseUnavailable, DBAPIError, OSError):
        await database.check_budget(Fleet(settings.api_instances, settings.web_concurrency))


async def forget_the_past(database: Database) -> None:
    """Answers to idempotency keys, and revocations, that are past their time. If not now, the next process will."""
    with suppress(DatabaseError, DBAPIError, OSError):
        async with asyncio.timeout(EXPIRY_SECONDS), database.write() as session:
            await expire(session)
            await revocation_log.expire(session)


def revocations_of(database: Database, settings: Settings) -> Revocations:
    keep_seconds = settings.access_token_seconds
    primary, *replicas = (
        RevocationLog(server, keep_seconds) for server in (database.primary.reader, *database.replicas)
    )
    return Revocations(primary, replicas, keep_seconds=keep_seconds, enabled=settings.revocation_enabled)


def api_keys_of(database: Database, settings: Settings) -> ApiKeys:
    async def find(digest: bytes) -> FoundKey | None:
        async with database.read(fresh=True) as session:
            return await keys_service.find(session, digest)

    async def note_use(keys: Collection[tuple[UUID, UUID]]) -> None:
        async with database.write() as session:
            await keys_service.note_use(session, keys)

    # Where nobody says what was revoked, a key is looked up twice a second.
    seconds = REMEMBER_SECONDS if settings.revocation_enabled else UNHEARD_SECONDS
    return ApiKeys(find, note_use, remember_seconds=seconds)


def reminders_of(database: Database) -> Reminders:
    async def order(emails: Collection[str]) -> None:
        async with database.write() as session:
            await password_service.order_reminders(session, emails)

    return reminders(order)


async def checkpoints_of(database: Database, keys: AuditKeys, settings: Settings) -> None:
    """Of the audit log, again and again."""
    if settings.audit_enabled:
        await Checkpoints(database, keys, interval_seconds=settings.audit_checkpoint_seconds).run()


def rotation_of(settings: Settings, rings: Keyrings, database: Database, redis: RedisClient) -> SecretFiles:
    """Passwords are for new connections; the rings are for whatever was made with them."""
    return secret_watch(
        settings,
        lambda now: use_credentials(database, now),
        rings.follow,
        lambda now: redis.use_url(now.redis_url.get_secret_value()),
    )


def use_credentials(database: Database, settings: Settings) -> None:
    """Raises ValueError."""
    options = database_options(settings)
    database.use_credentials(options.url, options.replica_urls)


def audit_keys(settings: Settings) -> AuditKeys:
    return Keyrings.of(settings).audit


def key_folder(settings: Settings) -> KeyFolder | None:
    folder, seconds = settings.jwt_keys_folder, settings.jwt_key_activation_seconds
    return None if folder is None else KeyFolder(folder, activation_seconds=seconds)


async def watch(folder: KeyFolder | None) -> None:
    if folder is not None:
        await folder.watch()


def signing_keys(settings: Settings) -> SigningKeys:
    if settings.jwt_private_key is not None:
        return SigningKeys.from_pem(settings.jwt_private_key.get_secret_value())
    return SigningKeys.derived_from(settings.secret_key.get_secret_value())


def redis_client(settings: Settings) -> RedisClient:
    return redis_from_url(
        settings.redis_url.get_secret_value(),
        timeout_seconds=settings.redis_timeout_ms / 1_000,
        new_breaker=lambda name: CircuitBreaker(
            settings.redis_breaker_failures, settings.redis_breaker_open_seconds, name=name
        ),
    )


def database_options(settings: Settings) -> DatabaseOptions:
    return DatabaseOptions(
        url=settings.database_url.get_secret_value(),
        replica_urls=tuple(url.get_secret_value() for url in settings.database_replica_urls),
        application_name=settings.instance_name,
        pool_size=settings.database_pool_size,
        pool_overflow=settings.database_pool_overflow,
        pool_timeout_seconds=settings.database_pool_timeout_ms / 1_000,
        pool_recycle_seconds=settings.database_pool_recycle_seconds,
        connect_timeout_seconds=settings.database_connect_timeout_ms / 1_000,
        statement_timeout_seconds=settings.database_statement_timeout_ms / 1_000,
        lock_timeout_seconds=settings.database_lock_timeout_ms / 1_000,
        max_lag_seconds=settings.database_max_lag_seconds,
        consistency_wait_seconds=settings.database_consistency_wait_ms / 1_000,
        statement_cache_size=settings.database_statement_cache_size,
    )
