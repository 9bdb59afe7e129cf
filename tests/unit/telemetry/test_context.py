from app.platform.telemetry.context import UNMATCHED_ROUTE, RequestContext, current, request_context


def test_outside_of_a_request_each_gets_a_context_of_its_own() -> None:
    assert current() is not current()
    assert current().route == UNMATCHED_ROUTE


def test_within_a_request_all_get_the_same() -> None:
    context = RequestContext("one")
    token = request_context.set(context)
    assert current() is context
    request_context.reset(token)


def test_contexts_share_nothing() -> None:
    one, two = RequestContext("one"), RequestContext("two")
    one.extra_headers.append((b"a", b"b"))
    assert not two.extra_headers
