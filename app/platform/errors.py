"""What can go wrong in the rules, said without HTTP: services raise these, `http/problems.py` gives each a status."""


class DomainError(Exception):
    """A rule was broken. `slug` and `title` are stable; `detail` is for the person who reads it."""

    slug = "error"
    title = "The request can't be carried out"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail


class NotFound(DomainError):
    """It isn't there, or belongs to another organization: callers can't tell which."""

    slug = "not-found"
    title = "Not found"


class Conflict(DomainError):
    """The present state of things doesn't allow it."""

    slug = "conflict"
    title = "Conflict"


class VersionConflict(DomainError):
    """It was changed since the caller read it."""

    slug = "precondition-failed"
    title = "It was changed since you read it"


class Unauthenticated(DomainError):
    """Nobody vouches for the caller."""

    slug = "unauthorized"
    title = "Not authenticated"


class Forbidden(DomainError):
    """The caller is known and may not do this."""

    slug = "forbidden"
    title = "Not allowed"
