#!/usr/bin/env bash
# The part of tpu_pod.sh that runs on each worker: keeps the training going without a connection.
#
#   worker.sh start FLAGS   in the background; one that runs is left alone
#   worker.sh log           streams the log until the training ends
#   worker.sh status        waits for the end, exits with the training's code (see train.sh; 1 if there is none)
#   worker.sh stop          SIGTERM, which saves; SIGKILL if that takes longer than STOP_SECONDS
set -euo pipefail
cd "$(dirname "$0")/.."

STATE="${STATE:-$HOME/.adakd_jax}"      # log, lock, exit code
STATUS_SECONDS="${STATUS_SECONDS:-300}" # how long after the first worker's end the others may take
STOP_SECONDS="${STOP_SECONDS:-600}"

ended_within() {
    flock --shared --timeout "$1" "$STATE/lock" true
}

start() {
    exec 9>"$STATE/lock"
    if ! flock --nonblock 9; then
        echo "the training is running already"
        return
    fi
    rm -f "$STATE/exit_code" "$STATE/group"
    # All that is started here inherits the lock: it is held exactly as long as any of it lives.
    setsid bash launch/worker.sh hold "$@" >>"$STATE/log" 2>&1 </dev/null &
    until [ -s "$STATE/group" ]; do sleep 0.1; done
}

hold() {
    local training code=0
    bash launch/train.sh "$@" &
    training=$!
    echo "$training" >"$STATE/training"
    echo $$ >"$STATE/group"
    wait "$training" || code=$?
    echo "$code" >"$STATE/exit_code"
}

log() {
    [ -s "$STATE/group" ] || { echo "no training was started on $(hostname)" >&2 && exit 1; }
    tail -n 100 -F --pid="$(cat "$STATE/group")" "$STATE/log"
}

status() {
    local code
    if ! ended_within "$STATUS_SECONDS"; then
        echo "$(hostname): still running after $STATUS_SECONDS s" >&2
        exit 1
    fi
    if [ ! -s "$STATE/exit_code" ]; then
        echo "$(hostname): no exit code: never started, killed, or the machine was restarted" >&2
        exit 1
    fi
    code="$(cat "$STATE/exit_code")"
    echo "$(hostname): the training ended with exit code $code"
    exit "$code"
}

stop() {
    ended_within 0 && return
    kill -TERM "$(cat "$STATE/training")" || true
    if ! ended_within "$STOP_SECONDS"; then
        echo "$(hostname): not ended $STOP_SECONDS s after SIGTERM; killed" >&2
        kill -KILL -- "-$(cat "$STATE/group")"
    fi
}

mkdir -p "$STATE"
case "${1:-}" in
start | hold | log | status | stop) "$@" ;;
*) echo "worker.sh: no step '${1:-}'; valid: start, log, status, stop" >&2 && exit 2 ;;
esac
