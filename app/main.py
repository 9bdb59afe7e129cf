"""`create_app(settings)`: the one place where the parts meet. Wiring, no logic."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.features.analytics import endpoints as analytics
from app.features.api_keys import endpoints as api_keys
from app.features.audit import endpoints as audit
from app.features.checkouts import endpoints as checkouts
from app.features.equipment import endpoints as equipment
from app.features.identity import endpoints as identity
from app.features.identity import password_endpoints as passwords
from app.features.identity import second_factor_endpoints as second_factors
from app.features.identity import session_endpoints as sessions
from app.features.organizations import endpoints as organizations
from app.features.organizations import invitation_endpoints as invitations
from app.operations import operations_router
from app.platform.http.batch import batch_router
from app.platform.http.bounds import RequestBoundsMiddleware
from app.platform.http.explanations import problems_router
from app.platform.http.gateway import Gateway
from app.platform.http.head import HeadMiddleware
from app.platform.http.hosts import AllowedHostsMiddleware
from app.platform.http.hotpath import Application, HotPath
from app.platform.http.openapi import customize_openapi
from app.platform.http.overloaded import classifier, refuse
from app.platform.http.problems import DeadlineExceeded, install_problem_handlers, send_problem
from app.platform.http.public_documents import PublicDocumentsMiddleware, PublicRule
from app.platform.http.routes import RouteTable
from app.platform.http.surrogate_keys import SurrogateKeys
from app.platform.limits import LimitRule, parse_limits
from app.platform.postgres.errors import DatabaseError
from app.platform.resilience.deadlines import DeadlineMiddleware
from app.platform.resilience.drain import Drain, DrainMiddleware
from app.platform.resilience.overload import AdaptiveLimit, Gate, OverloadMiddleware
from app.platform.security.headers import CrossSiteWriteMiddleware, SecurityHeadersMiddleware
from app.platform.telemetry.logs import AccessLog, configure_logging
from app.platform.telemetry.metrics import RequestMetrics
from app.platform.telemetry.middleware import QUIET_PATHS, RequestContextMiddleware
from app.platform.telemetry.multiprocess import forget_dead_workers
from app.platform.telemetry.traces import Tracer
from app.platform.telemetry.tracing import tracing
from app.platform.telemetry.watching import watching
from app.problems import TRANSLATIONS
from app.resources import Resources, open_resources
from app.settings import Settings

OpenResources = Callable[[Settings], AbstractAsyncContextManager[Resources]]
API = "/api/v1"
DESCRIPTION = PublicRule(max_age=60, stale_while_revalidate=600, stale_if_error=86_400, tags=("documents",))
# Keys are published before they sign: an old list will do for a while, but not for a day.
KEYS = PublicRule(max_age=60, stale_while_revalidate=60, stale_if_error=600, tags=("documents", "keys"))
PUBLIC_DOCUMENTS = {
    "/openapi.json": DESCRIPTION,
    "/docs": DESCRIPTION,
    "/problems/": DESCRIPTION,
    "/.well-known/jwks.json": KEYS,
}
MAX_BATCH_RESPONSE_BYTES = 8 * 1024 * 1024
CORS_REQUEST_HEADERS = ("Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key", "X-Request-ID")
CORS_RESPONSE_HEADERS = (
    "ETag",
    "Link",
    "Location",
    "Retry-After",
    "X-Request-ID",
    "X-Consistency-Token",
    "Idempotency-Replayed",
)


def create_app(settings: Settings | None = None, open_resources: OpenResources = open_resources) -> FastAPI:
    """The ASGI application. Opens nothing before its lifespan begins; a test passes parts of its own."""
    settings = settings or Settings()
    drain = Drain()
    access_log = AccessLog(settings.log_format)
    metrics = RequestMetrics() if settings.metrics_enabled else None
    tracer = tracer_for(settings)
    hot_path = HotPath(access_log=access_log, metrics=metrics, drain=drain, tracer=tracer)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        forget_dead_workers()
        async with observing(settings, tracer), open_resources(settings) as app.state.resources:
            hot_path.parts = app.state.resources
            yield
            hot_path.parts = None

    surrogate_keys = SurrogateKeys(settings.surrogate_key_header)

    def gateway(inner: ASGIApp) -> Gateway:
        """Kept, since the parts of a batch come in through it again."""
        app.state.gateway = made = Gateway(
            inner,
            routes=lambda: app.state.routes,
            parts=lambda: app.state.resources,
            default_limit=parse_limits(settings.rate_limit_default),
            organization_limit=organization_limit(settings),
            surrogate_keys=surrogate_keys,
        )
        return made

    configure_observation(settings)
    app = Application(
        hot_path=hot_path,
        title="Headroom",
        version=settings.release,
        lifespan=lifespan,
        middleware=[
            *middleware(settings, drain, access_log, metrics, tracer),
            *admission(settings, lambda: app.state.routes),
            Middleware(gateway),
            Middleware(PublicDocumentsMiddleware, rules=PUBLIC_DOCUMENTS, surrogate_keys=surrogate_keys),
        ],
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours tell it all
        redirect_slashes=False,
    )
    app.state.drain = drain
    app.include_router(api_router(settings))
    app.include_router(operations_router(settings, app, drain))
    app.include_router(problems_router())
    app.state.routes = RouteTable(iter_route_contexts(app.routes))
    install_problem_handlers(app, TRANSLATIONS)
    customize_openapi(app)
    return app


def configure_observation(settings: Settings) -> None:
    configure_logging(settings.log_level, settings.log_format)
    if settings.sentry_dsn is not None:
        from app.platform.telemetry.errors import report_errors  # weighs 8 MB

        report_errors(
            settings.sentry_dsn.get_secret_value(),
            environment=settings.environment,
            release=settings.release,
            instance=settings.instance_name,
            expected=(DatabaseError,),
        )


def tracer_for(settings: Settings) -> Tracer | None:
    if settings.traces_endpoint is None:
        return None
    return Tracer(share=settings.traces_share, slow_seconds=settings.traces_slow_ms / 1_000)


@asynccontextmanager
async def observing(settings: Settings, tracer: Tracer | None) -> AsyncIterator[None]:
    """What is measured beside the requests, and the traces on their way out."""
    who = {"instance": settings.instance_name, "release": settings.release, "environment": settings.environment}
    async with watching(enabled=settings.metrics_enabled), tracing(tracer, settings.traces_endpoint, **who):
        yield


def organization_limit(settings: Settings) -> LimitRule | None:
    text = settings.rate_limit_organization
    return parse_limits(text, "organization") if text else None


def api_router(settings: Settings) -> APIRouter:
    """Routes are tried in order: what is asked for most comes first."""
    router = APIRouter(prefix=API)
    router.include_router(equipment.router)
    router.include_router(checkouts.router)
    router.include_router(identity.router)
    router.include_router(sessions.router)
    router.include_router(passwords.router)
    router.include_router(second_factors.router)
    router.include_router(analytics.router)
    router.include_router(audit.router)
    router.include_router(api_keys.router)
    router.include_router(organizations.router)
    router.include_router(invitations.router)
    router.include_router(
        batch_router(
            lambda request: request.app.state.gateway,
            prefix=f"{API}/",
            max_requests=settings.batch_max_requests,
            max_response_bytes=MAX_BATCH_RESPONSE_BYTES,
            max_at_once=sheddable_at_once(settings),
        )
    )
    return router


def middleware(
    settings: Settings, drain: Drain, access_log: AccessLog, metrics: RequestMetrics | None, tracer: Tracer | None
) -> list[Middleware]:
    """From the outside in. All pure ASGI: BaseHTTPMiddleware costs a hundred times as much."""
    return [
        Middleware(SecurityHeadersMiddleware, https_only=settings.production),
        Middleware(
            RequestContextMiddleware,
            instance=settings.instance_name,
            expose_internals=settings.internals_exposed,
            access_log=access_log,
            metrics=metrics,
            tracer=tracer,
        ),
        Middleware(DrainMiddleware, drain=drain),
        Middleware(AllowedHostsMiddleware, allowed=settings.allowed_hosts, unchecked_paths=QUIET_PATHS),
        Middleware(RequestBoundsMiddleware, max_body_bytes=settings.max_body_bytes),
        Middleware(DeadlineMiddleware, default_seconds=settings.request_timeout_seconds, expired=deadline_exceeded),
        Middleware(CrossSiteWriteMiddleware, trusted_origins=settings.cors_origins),
        *cors(settings),
        Middleware(HeadMiddleware),
    ]


def cors(settings: Settings) -> list[Middleware]:
    """Exact origins only; none by default."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=True,
            allow_methods=("GET", "POST", "PATCH", "DELETE"),
            allow_headers=CORS_REQUEST_HEADERS,
            expose_headers=CORS_RESPONSE_HEADERS,
            max_age=600,
        )
    ]


def admission(settings: Settings, routes: Callable[[], RouteTable]) -> list[Middleware]:
    """Inside the deadline, since who waits for a place waits no longer than that; before anything is looked up."""
    if not settings.admission_enabled:
        return []
    limit = AdaptiveLimit(least=settings.admission_min_in_flight, most=settings.admission_max_in_flight)
    gate = Gate(
        limit,
        max_waiting=settings.admission_max_waiting,
        wait_seconds=settings.admission_wait_ms / 1_000,
        max_sheddable=sheddable_at_once(settings),
    )
    return [
        Middleware(OverloadMiddleware, gate=gate, classify=classifier(routes), refused=refuse, exempt_paths=QUIET_PATHS)
    ]


def sheddable_at_once(settings: Settings) -> int:
    """What can be asked for later holds no more of a server's connections: so many requests, and parts of batches."""
    pool = settings.database_pool_size + settings.database_pool_overflow
    return max(1, int(pool * settings.admission_sheddable_pool_share))


async def deadline_exceeded(scope: Scope, receive: Receive, send: Send) -> None:
    await send_problem(send, DeadlineExceeded(), scope["path"])


app = create_app()
