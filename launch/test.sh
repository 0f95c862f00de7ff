#!/usr/bin/env bash
# Makes .venv and runs the default test suite; arguments go to pytest. Needs a package registry and Python 3.11 or newer:
# the newest that is found, or PYTHON=/path/to/python.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh

echo "Installing adakd_jax and its test dependencies into .venv (a few minutes the first time) …"
install_into .venv -e ".[test]"
JAX_PLATFORMS=cpu exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
