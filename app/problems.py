"""What the errors of other rooms mean on the wire."""

from app.platform.http.problems import DeadlineExceeded, Problem, ServiceUnavailable
from app.platform.postgres.errors import CommitOutcomeUnknown, DatabaseError, StatementTimeout
from app.platform.resilience import deadlines


class OutcomeUnknown(ServiceUnavailable):
    """The change may or may not have been made: look, or send it again with the same `Idempotency-Key`."""

    slug = "outcome-unknown"
    title = "Whether the change was made is not known"


def translate(error: Exception) -> Problem:
    match error:
        case CommitOutcomeUnknown():
            return OutcomeUnknown()
        case StatementTimeout() | deadlines.DeadlineExceeded():
            return DeadlineExceeded()
        case _:
            return ServiceUnavailable("The database can't serve this now.")


TRANSLATIONS = {DatabaseError: translate, deadlines.DeadlineExceeded: translate}
