import pytest

from app.platform.limits import address_identity


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
