"""Runs below supervisord, as its event listener: the workers of a master that died unexpectedly have to leave as well.

Workers of nginx and gunicorn outlive a master that is killed, and keep the port which its successor needs. They are in
the process group of their master, since supervisord starts each program in a group of its own.
"""

import os
import signal
from contextlib import suppress

from supervisor import childutils  # type: ignore[import-untyped]


def main() -> None:
    while True:
        _, payload = childutils.listener.wait()
        event = childutils.get_headers(payload)
        with suppress(ProcessLookupError):
            os.killpg(int(event["pid"]), signal.SIGTERM)
        childutils.listener.ok()


if __name__ == "__main__":
    main()
