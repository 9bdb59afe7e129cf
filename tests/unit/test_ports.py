"""Where the native stack listens unless it is told otherwise."""

from dataclasses import replace

from deploy.local.options import Options


def test_no_two_programs_want_the_same_port_by_default():
    ports = [port for _, port in replace(Options(), pooler="pgbouncer", observe="1").ports()]
    assert len(ports) == len(set(ports))
