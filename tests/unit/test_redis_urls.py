import pytest

from app.platform.redis.cluster import slot_of
from app.platform.redis.urls import RedisUrl


def test_one_server_is_as_it_was() -> None:
    parsed = RedisUrl.parse("redis://127.0.0.1:6379/0")
    assert (parsed.kind, parsed.hosts, parsed.path) == ("", ("127.0.0.1:6379",), ("0",))


def test_sentinels_and_the_service_that_they_watch() -> None:
    parsed = RedisUrl.parse("rediss+sentinel://me:p@ss@a,b:1,[::1]/service/2?ssl_cert_reqs=required")
    assert parsed.kind == "sentinel"
    assert parsed.hosts == ("a:26379", "b:1", "[::1]:26379")
    assert parsed.path == ("service", "2")
    assert parsed.of("c:3", "2") == "rediss://me:p@ss@c:3/2?ssl_cert_reqs=required"


def test_nodes_of_a_cluster() -> None:
    parsed = RedisUrl.parse("redis+cluster://a:7000,b:7001")
    assert (parsed.kind, parsed.hosts) == ("cluster", ("a:7000", "b:7001"))
    assert parsed.of("c:7002") == "redis://c:7002/"


@pytest.mark.parametrize(
    "url",
    ["", "http://a", "redis+other://a", "redis+sentinel://", "redis+cluster:///0", "redis+cluster://" + "a," * 40],
)
def test_what_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"hosts|URL"):
        RedisUrl.parse(url)


def test_a_command_goes_where_its_key_is() -> None:
    tagged = slot_of("GET", ["limit:{user:1}:a"])
    assert slot_of("EVALSHA", ["digest", 2, "limit:{user:1}:b", "limit:{user:1}:c", 7]) == tagged
    assert slot_of("MGET", [b"x{user:1}", "y{user:1}"]) == tagged
    assert slot_of("GET", ["limit:{user:2}:a"]) != tagged
    assert slot_of("PING", []) == 0
