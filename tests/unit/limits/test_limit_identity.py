from dataclasses import replace
from uuid import uuid4

import pytest

from app.platform.limits import address_identity, caller_identity, parse_limits
from app.platform.security.caller import Caller, Role


@pytest.mark.parametrize(
    ("address", "identity"),
    [
        ("192.0.2.7", "address:192.0.2.7"),
        ("2001:db8:1:2::7", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:3::7", "address:2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "address:192.0.2.7"),
        ("testclient", "address:testclient"),
        ("", "address:"),
    ],
)
def test_one_bucket_for_what_one_customer_has(address: str, identity: str) -> None:
    assert address_identity(address) == identity


def test_an_absurd_address_stays_short() -> None:
    assert len(address_identity("x" * 10_000)) == len("address:") + 64


def test_a_key_has_a_bucket_of_its_own_but_for_what_is_strict() -> None:
    user = Caller(uuid4(), uuid4(), Role.MEMBER, frozenset(), "token")
    key = replace(user, api_key_id=uuid4())
    ordinary, strict = parse_limits("1/minute"), replace(parse_limits("1/minute"), per="user")
    assert caller_identity(user, ordinary) == caller_identity(user, strict) == f"user:{user.user_id}"
    assert caller_identity(key, ordinary) == f"key:{key.api_key_id}"
    assert caller_identity(key, strict) == f"user:{user.user_id}"
