#!/usr/bin/env bash
# Trains, and says with its exit code what a restart policy has to know:
#
#    0   the run is finished
#   75   SIGTERM, which saves first: the same command continues
#    2   wrong settings or files, or a full disk: another start would end the same way
#   any other: it failed; the same command continues from the last checkpoint
#
# `python -m adakd_jax.train` ends with 0 in the first two cases.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON="${PYTHON:-.venv/bin/python}"
signals=0 training=""

trap 'signals=$((signals + 1)); [ -z "$training" ] || kill -TERM "$training" 2>/dev/null || true' TERM
"$PYTHON" -m adakd_jax.train "$@" &
training=$!
[ "$signals" -eq 0 ] || kill -TERM "$training"

# A signal ends `wait` early, with the signal's code instead of the training's.
while true; do
    seen=$signals code=0
    wait "$training" || code=$?
    [ "$seen" -ne "$signals" ] || break
done
# 143: the signal came before Python could handle it; nothing was unsaved then.
if [ "$signals" -gt 0 ] && { [ "$code" -eq 0 ] || [ "$code" -eq 143 ]; }; then
    code=75
fi
exit "$code"
