"""Whose bucket it is."""

from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address


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
