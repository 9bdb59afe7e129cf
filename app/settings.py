"""Every knob of the service, typed, with its unit in its name; each is an environment variable of that name.

`.env.example` lists them all. Production refuses to start with a weak one (`Settings.weaknesses`).
"""

import socket
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from app.secret_files import FileSource

DEVELOPMENT_SECRET = "development-only-secret-refused-in-production"

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Milliseconds = Annotated[int, Field(gt=0, le=600_000)]
Count = Annotated[int, Field(ge=0, le=100_000)]
Strings = Annotated[tuple[str, ...], NoDecode]
Tiers = Annotated[dict[str, Annotated[float, Field(gt=0, le=1_000)]], NoDecode, Field(min_length=1, max_length=20)]


class WeakSettings(ValueError):
    """Settings that are fine on a laptop and not in production."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    # The process
    environment: Literal["development", "test", "production"] = "development"
    instance_name: str = Field(default_factory=socket.gethostname, max_length=64)
    release: str = Field("0.1.0", max_length=64)
    api_instances: int = Field(1, ge=1, le=1_000)  # that share the databases, and with them their connections
    web_concurrency: int = Field(1, ge=1, le=256)  # workers per instance
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    # X-Instance and X-Served-By tell how the fleet is built: never in production.
    expose_internals: bool | None = None

    # Secrets
    secret_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    secret_keys_accepted: Annotated[tuple[SecretStr, ...], NoDecode] = ()  # beside it, for what they have signed
    encryption_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)  # of secrets that are kept, such as second factors
    encryption_keys_previous: Annotated[tuple[SecretStr, ...], NoDecode] = ()  # still good for what they have sealed
    jwt_private_key: SecretStr | None = None  # Ed25519, PEM; development derives one from SECRET_KEY
    jwt_keys_folder: Path | None = None  # instead: of several such PEMs, which may change while the service runs
    jwt_key_activation_seconds: Seconds = 60.0  # from when a new one is there until it signs

    # HTTP
    allowed_hosts: Strings = ("*",)
    cors_origins: Strings = ()
    request_timeout_seconds: Seconds = 10.0  # the deadline of a request that names none; also the most it may name
    max_body_bytes: int = Field(1_048_576, gt=0, le=1_073_741_824)
    batch_max_requests: int = Field(20, ge=1, le=20)
    surrogate_key_header: Literal["", "Surrogate-Key", "Cache-Tag"] = ""  # for a CDN in front; empty: none is sent
    metrics_peers: Strings = ()  # base URLs of all instances, for the operators' /metrics of the fleet

    # Postgres
    database_url: SecretStr = SecretStr("postgresql+asyncpg://headroom:headroom-development@127.0.0.1:5432/headroom")
    database_replica_urls: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    migration_database_url: SecretStr | None = None  # of the tables' owner, for migrations; the service doesn't use it
    database_pool_size: int = Field(15, ge=1, le=1_000)  # connections kept, per process and server
    database_pool_overflow: Count = 0  # connections on top, under load; each is opened and closed for one use
    database_pool_timeout_ms: Milliseconds = 2_000
    database_pool_recycle_seconds: Seconds = 1_800.0
    database_connect_timeout_ms: Milliseconds = 2_000
    database_statement_timeout_ms: Milliseconds = 5_000
    database_lock_timeout_ms: Milliseconds = 2_000
    database_max_lag_seconds: Seconds = 10.0  # a replica further behind gets no reads
    database_consistency_wait_ms: Milliseconds = 150  # for a replica to reach what a read requires, then the primary
    database_statement_cache_size: Count = 256  # prepared statements per connection; 0 behind a pooler

    # Redis
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    redis_timeout_ms: Milliseconds = 50  # that a command may take in all
    redis_breaker_failures: int = Field(3, ge=1, le=1_000)
    redis_breaker_open_seconds: Seconds = 1.0

    # Patterns, each with its switch
    admission_enabled: bool = True
    admission_min_in_flight: int = Field(20, ge=1, le=10_000)  # requests that a process works on at once, at least
    admission_max_in_flight: int = Field(400, ge=1, le=10_000)  # and at most; between them the process finds its own
    admission_max_waiting: Count = 2_000  # requests that wait for a place in a process
    admission_wait_ms: Milliseconds = 500  # for a place; then 503
    # Sheddable requests, and parts of batches, that a process works on at once: this share of a server's pool, at most.
    admission_sheddable_pool_share: float = Field(0.5, gt=0, le=100)
    cache_enabled: bool = True
    cache_max_entry_bytes: int = Field(1_048_576, gt=0)
    cache_memory_bytes: int = Field(8_388_608, ge=0)  # of answers in memory, per process; 0: in Redis alone
    rate_limit_enabled: bool = True
    rate_limit_scale: float = Field(1.0, gt=0, le=1_000_000)  # multiplies all limits: a load test lifts them by it
    rate_limit_default: str = "600/minute"  # of every route that declares none; per caller, else per address
    rate_limit_organization: str = "6000/minute"  # of all its members' requests together; empty: none
    rate_limit_tiers: Tiers = {"free": 0.2, "standard": 1.0, "premium": 5.0}  # what one multiplies its limits by
    rate_limit_local_share: float = Field(0.5, gt=0, le=1)  # of a limit, per process, while Redis is away
    consistency_enabled: bool = True  # off: reads may lack the caller's own last write
    idempotency_enabled: bool = True
    revocation_enabled: bool = True  # off: a token is good until it ends, whatever has become of its session
    audit_enabled: bool = True
    audit_checkpoint_seconds: Seconds = 10.0  # between two checkpoints of the audit log, about
    metrics_enabled: bool = True

    # Identity
    access_token_seconds: Seconds = 900.0
    session_idle_seconds: float = Field(1_209_600.0, gt=0, le=31_536_000)  # without a refresh; then it is over
    session_absolute_seconds: float = Field(7_776_000.0, gt=0, le=31_536_000)  # however often it is refreshed
    refresh_grace_seconds: Seconds = 10.0  # in which a refresh whose answer was lost may be sent again
    sessions_per_user: int = Field(20, ge=1, le=1_000)  # beyond that the oldest end
    # Off: who registers logs in at once, and a taken address is told (409). On in production, else off, by default
    login_needs_verified_email: bool | None = None
    jwt_issuer: str = "headroom"
    jwt_audience: str = "headroom-api"
    # Sorted SHA-1 hashes, as Have I Been Pwned gives them away; a short list is shipped
    breached_passwords_files: Annotated[tuple[Path, ...], NoDecode] = ()
    password_hash_concurrency: int = Field(2, ge=1, le=16)  # threads; each takes 19 MiB while it hashes

    service_name: str = Field("Headroom", max_length=64)  # as people see it, in an authenticator app

    # Mail
    mail_url: SecretStr = SecretStr("file:.state/mail")  # smtp://user:password@host:587, smtps://, file:FOLDER
    mail_sender: str = Field("Headroom <headroom@example.com>", max_length=200)
    public_url: str = Field("http://127.0.0.1:8080", max_length=200)  # of the pages that links in mails lead to
    worker_port: int = Field(8090, ge=1, le=65_535)  # the worker's /metrics, on loopback or WORKER_HOST
    worker_host: str = Field("127.0.0.1", max_length=64)

    # Traces
    traces_endpoint: str | None = None  # of a collector, for OTLP over HTTP: http://127.0.0.1:4318
    traces_share: float = Field(0.01, ge=0, le=1)  # of the requests; those that fail or are slow are traced in any case
    traces_slow_ms: Milliseconds = 1_000

    # Errors
    sentry_dsn: SecretStr | None = None

    @field_validator(
        *("allowed_hosts", "cors_origins", "metrics_peers", "database_replica_urls", "secret_keys_accepted"),
        *("encryption_keys_previous", "breached_passwords_files"),
        mode="before",
    )
    @classmethod
    def split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("rate_limit_tiers", mode="before")
    @classmethod
    def split_tiers(cls, value: object) -> object:
        """`free=0.2,standard=1`"""
        if isinstance(value, str):
            return dict(part.strip().partition("=")[::2] for part in value.split(","))
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Files of secrets before .env, which is for development."""
        return init_settings, env_settings, FileSource(settings_cls), dotenv_settings

    @property
    def owner_url(self) -> str:
        """Of the tables' owner; where none is named, the service's own role is."""
        return (self.migration_database_url or self.database_url).get_secret_value()

    @property
    def production(self) -> bool:
        return self.environment == "production"

    @cached_property
    def internals_exposed(self) -> bool:
        return not self.production if self.expose_internals is None else self.expose_internals

    @cached_property
    def verified_email_needed(self) -> bool:
        return self.production if self.login_needs_verified_email is None else self.login_needs_verified_email

    def weaknesses(self) -> list[str]:
        """What production does not start with; empty when there is nothing."""
        secret = self.secret_key.get_secret_value()
        encryption = self.encryption_key.get_secret_value()
        found = {
            "SECRET_KEY is the development one": secret == DEVELOPMENT_SECRET,
            "SECRET_KEY is shorter than 32 characters": len(secret) < 32,
            "ENCRYPTION_KEY is the development one, or shorter than 32 characters": encryption == DEVELOPMENT_SECRET
            or len(encryption) < 32,
            "MAIL_URL leads to a folder": self.mail_url.get_secret_value().startswith("file:"),
            "JWT_PRIVATE_KEY is not set, nor JWT_KEYS_FOLDER": not (self.jwt_private_key or self.jwt_keys_folder),
            "DATABASE_URL has the development password": "headroom-development" in self.database_url.get_secret_value(),
            "ALLOWED_HOSTS allows any host": "*" in self.allowed_hosts,
            "CORS_ORIGINS allows any origin": "*" in self.cors_origins,
            "RATE_LIMIT_SCALE is not 1": self.rate_limit_scale != 1,
            "RATE_LIMIT_ENABLED is off": not self.rate_limit_enabled,
            "IDEMPOTENCY_ENABLED is off, and nginx repeats writes that carry a key": not self.idempotency_enabled,
            "REVOCATION_ENABLED is off": not self.revocation_enabled,
            "AUDIT_ENABLED is off": not self.audit_enabled,
            "LOGIN_NEEDS_VERIFIED_EMAIL is off: registering tells who is known": not self.verified_email_needed,
            "EXPOSE_INTERNALS is on": self.internals_exposed,
            "LOG_LEVEL debug logs more than it should": self.log_level == "debug",
        }
        return [weakness for weakness, present in found.items() if present]

    @model_validator(mode="after")
    def refuse_weak_production(self) -> Self:
        if self.production and (weaknesses := self.weaknesses()):
            raise WeakSettings("production refuses these settings: " + "; ".join(weaknesses))
        return self
