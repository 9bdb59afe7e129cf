"""What nginx' configuration must not say. What it does is asked of nginx itself: tests/system and tests/faults."""

import re
from pathlib import Path

import pytest

from deploy.local.nginx import prepare
from deploy.local.options import Options

ROOT = Path(__file__).parents[2]
NGINX = sorted(path for path in (ROOT / "nginx").rglob("*") if path.suffix in (".conf", ".template"))
REPEATED = re.compile(r"^\s*proxy_next_upstream\s+([^;]+);", re.MULTILINE)

# Of all instances together: natively a line of the upstream, in Compose a variable.
SERVERS = re.compile(r"^.*\bserver [^;]+; server [^;]+;$", re.MULTILINE)


def repeats_what_was_shed(configuration: str) -> bool:
    """An instance that answers 503 is full, not gone: sent on, its load would fill the next one, until all are."""
    conditions = {word for line in REPEATED.findall(configuration) for word in line.split()}
    return bool(conditions & {"http_503", "http_429"})


@pytest.mark.parametrize("path", NGINX, ids=lambda path: path.name)
def test_a_shed_request_is_not_passed_on(path: Path) -> None:
    assert not repeats_what_was_shed(path.read_text())


def test_control_one_that_passes_it_on_is_found() -> None:
    template = (ROOT / "nginx" / "templates" / "headroom.conf.template").read_text()
    assert repeats_what_was_shed(
        template.replace("proxy_next_upstream error timeout;", "proxy_next_upstream http_503;")
    )


def test_no_instance_is_taken_out_by_failures(tmp_path: Path) -> None:
    """What the default does is shown by test_control_the_default_max_fails_loses_requests."""
    prepare(tmp_path, Options(), {})
    native = SERVERS.findall((tmp_path / "conf.d" / "headroom.conf").read_text())
    compose = SERVERS.findall((ROOT / "docker-compose.yml").read_text())
    for servers in (*native, *compose):
        assert servers.count("max_fails=0") == servers.count("server ") == 2
    assert len(native) == len(compose) == 1
