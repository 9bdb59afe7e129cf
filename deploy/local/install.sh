#!/bin/bash
# Installs what is missing: the servers from the distribution's packages where that is possible, else it says which;
# and the Python packages, into .venv, at the versions and hashes of requirements-dev.lock.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}

missing_packages() {
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null || echo postgresql
    command -v redis-server >/dev/null || echo redis-server
    command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || echo nginx
    [ -z "${POOLER:-}${TESTS:-}" ] || command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || echo pgbouncer
    [ -z "${OBSERVE:-}${TESTS:-}" ] || observers
    [ -z "${TESTS:-}" ] || command -v chromium chromium-browser google-chrome >/dev/null || echo chromium
    [ -x .venv/bin/python ] || "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

observers() {
    for name in prometheus prometheus-alertmanager prometheus-{node,postgres,redis,nginx}-exporter; do
        command -v "$name" >/dev/null || echo "$name"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo --non-interactive "$@"; fi
}

install_packages() {
    echo "installing $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

install_python_packages() {
    local lock=requirements-dev.lock stamp=.venv/installed
    cmp -s "$lock" "$stamp" && return
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $python is older than 3.11: set PYTHON" >&2; exit 1; }
    echo "installing the Python packages of $lock"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
    cp "$lock" "$stamp"
}

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null || ! as_root true 2>/dev/null; then
        echo "error: install these first: ${missing[*]} (their names on Debian and Ubuntu)" >&2
        exit 1
    fi
    install_packages "${missing[@]}"
fi
install_python_packages
