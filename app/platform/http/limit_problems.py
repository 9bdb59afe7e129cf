"""Why a caller has to wait: the problem types of draft-ietf-httpapi-ratelimit-headers-11, section 5.

The draft recommends 503 for reduced capacity. Here it is 429 like the others: the request is one more than the caller
may send now, and a 503 would count as a failure of the service.
"""

from collections.abc import Sequence

from app.platform.http.problems import TooManyRequests


class QuotaExceeded(TooManyRequests):
    """The rate limit is used up. `Retry-After` says in how many seconds to come back, and `violated-policies` which of
    those in `RateLimit-Policy` refuse the request.
    """

    slug = "quota-exceeded"
    title = "Request cannot be satisfied as assigned quota has been exceeded"

    def __init__(self, policies: Sequence[str], detail: str | None = None) -> None:
        super().__init__(detail or "The rate limit is used up; Retry-After says when to come back.")
        self.members = {"violated-policies": list(policies)}


class ReducedCapacity(QuotaExceeded):
    """What counts requests for all processes is away, and this one lets a share of the limit through by itself. The
    share is used up: `Retry-After`, `RateLimit-Policy` and `violated-policies` tell of that.
    """

    slug = "temporary-reduced-capacity"
    title = "Request cannot be satisfied due to temporary server capacity constraints"


class AbnormalUsage(TooManyRequests):
    """Passwords or codes were tried more often than people do. `Retry-After` says when to come back."""

    slug = "abnormal-usage-detected"
    title = "Request cannot be satisfied due to detection of abnormal request pattern"
