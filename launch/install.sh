#!/usr/bin/env bash
# Makes .venv in this checkout. EXTRAS: tpu, cuda13 or cuda12, and gcs for gs:// paths. PYTHON: a path or a version.
# Cloud images often come with a Python older than this package needs; uv brings its own.
set -euo pipefail
cd "$(dirname "$0")/.."

EXTRAS="${EXTRAS:-tpu,gcs}"
PATH="$HOME/.local/bin:$PATH"

if ! command -v uv >/dev/null; then
    curl --fail --silent --show-error --location https://astral.sh/uv/install.sh | sh
fi
[ -x .venv/bin/python ] || uv venv --quiet --python "${PYTHON:-3.13}" .venv
uv pip install --quiet --python .venv/bin/python --editable ".[$EXTRAS]"
