#!/usr/bin/env bash
# Makes .venv and runs the default test suite. Needs Python ≥ 3.11 and a package registry; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON="${PYTHON:-python3}"
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
echo "Installing adakd_jax and its test dependencies into .venv (a few minutes the first time) …"
.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check -e ".[test]"
JAX_PLATFORMS=cpu exec .venv/bin/python -m pytest -n 2 --dist loadgroup "$@"
