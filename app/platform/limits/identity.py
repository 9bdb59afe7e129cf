"""Whose bucket it is."""

from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from app.platform.limits.rules import LimitRule
from app.platform.security.caller import Caller


def caller_identity(caller: Caller, rule: LimitRule) -> str:
    """Each API key has a bucket of its own, so that a program which runs hot leaves its owner's browser alone. Who has
    many keys has no more for it: all of an organization's requests are charged to that, too.
    """
    if caller.api_key_id is None or rule.per == "user":
        return f"user:{caller.user_id}"
    return f"key:{caller.api_key_id}"


@lru_cache(maxsize=4_096)
def address_identity(address: str) -> str:
    """A bucket for an IPv4 address, and for an IPv6 /64: a site has at least one of these to itself (RFC 6177).

    An IPv4 address that is mapped into IPv6 is the same bucket. What is no address is a bucket of its own.
    """
    try:
        parsed = IPv6Address(address)
    except AddressValueError:
        return f"address:{address[:64]}"
    if parsed.ipv4_mapped:
        return f"address:{parsed.ipv4_mapped}"
    return f"address:{IPv6Address(int(parsed) >> 64 << 64)}/64"
