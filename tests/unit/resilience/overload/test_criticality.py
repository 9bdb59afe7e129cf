import pytest

from app.platform.resilience.overload import Criticality, criticality, criticality_of


def plain() -> None: ...


@criticality(Criticality.CRITICAL)
def first() -> None: ...


@criticality(sheddable_with="total=exact")
def listing() -> None: ...


def test_what_declares_nothing_is_normal() -> None:
    assert criticality_of(plain).of(b"total=exact") is Criticality.NORMAL
    assert criticality_of(None).of(b"") is Criticality.NORMAL


def test_what_is_declared_holds() -> None:
    assert criticality_of(first).of(b"") is Criticality.CRITICAL


@pytest.mark.parametrize("query", [b"total=exact", b"a=1&total=exact", b"total=exact&a=1"])
def test_a_costly_parameter_makes_it_sheddable(query: bytes) -> None:
    assert criticality_of(listing).of(query) is Criticality.SHEDDABLE


@pytest.mark.parametrize("query", [b"", b"total=none", b"subtotal=exact", b"total=exactly"])
def test_another_does_not(query: bytes) -> None:
    assert criticality_of(listing).of(query) is Criticality.NORMAL
