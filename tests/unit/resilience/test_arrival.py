import pytest
from starlette.types import Scope

from app.platform.resilience.arrival import ArrivalClock, sent_at

NGINX = ("198.51.100.7", 0)


class Clocks:
    """Of nginx, of this machine, and the steady one, in seconds."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.steady = 0.0
        self.ahead = ahead
        self.arrival = ArrivalClock(lambda: 1_000_000.0 + self.steady + self.ahead, lambda: self.steady)

    def queued(self, seconds: float) -> float:
        """What is made of a request that has waited so long."""
        return self.arrival.queued_seconds(request(b"t=%.3f" % (1_000_000.0 + self.steady - seconds)))


def request(value: bytes, client: tuple[str, int] | None = NGINX) -> Scope:
    return {"type": "http", "client": client, "headers": [(b"x-request-start", value)]}


@pytest.mark.parametrize("ahead", [0.0, 3_600.0, -3_600.0])
def test_waiting_is_seen_whatever_the_clocks_say(ahead: float) -> None:
    clocks = Clocks(ahead)
    assert clocks.queued(0.001) == pytest.approx(0)
    assert clocks.queued(2.001) == pytest.approx(2)


def test_a_clock_that_was_set_is_forgotten() -> None:
    clocks = Clocks()
    clocks.queued(0)
    clocks.ahead = 30.0
    assert clocks.queued(0) == pytest.approx(30)
    for _ in range(2):
        clocks.steady += 61
        clocks.queued(0)
    assert clocks.queued(0) == pytest.approx(0)
    clocks.ahead = 0.0
    assert clocks.queued(0) == pytest.approx(0)


@pytest.mark.parametrize(
    "value", [b"", b"t=", b"1700000000.000", b"t=x", b"t=1.5", b"t=-1.000", b"t=" + b"9" * 20 + b".000"]
)
def test_what_is_no_time_is_none(value: bytes) -> None:
    assert sent_at(request(value)) is None
    assert ArrivalClock().queued_seconds(request(value)) == 0


@pytest.mark.parametrize("client", [None, ("127.0.0.1", 40_000)])
def test_nobody_but_a_trusted_proxy_is_believed(client: tuple[str, int] | None) -> None:
    assert sent_at(request(b"t=1700000000.000", client)) is None
