#!/usr/bin/env bash
# Trains on a Cloud TPU pod, started from a machine with git and gcloud, signed in.
#
#   bash launch/tpu_pod.sh STEP [--dry-run] [-- FLAGS OF THE TRAINING]
#
#   create    ask for the TPU as a queued resource and wait until it is there
#   install   put the commit checked out here, without uncommitted changes, on all workers; stops what runs there
#   run       start the training on all workers, in the background; where one runs it is left alone
#   log       stream the first worker's log until the training has ended on all; exits with its code (see train.sh)
#   resume    create, install, run: after a preemption or a failure, or with another commit; goes on from RUN_DIR
#   delete    give the TPU back
#   all       resume and log, again after each preemption and failure, until the run is finished; then delete
#
# Any variable can be set from outside:
#   PROJECT=my-project ZONE=us-west4-a RUN_DIR=gs://my-bucket/run bash launch/tpu_pod.sh all

PROJECT="${PROJECT:-}"                                # required: the Google Cloud project
ZONE="${ZONE:-}"                                      # required: a zone that has this accelerator
RUN_DIR="${RUN_DIR:-}"                                # required: run folder, gs://
CONFIG="${CONFIG:-configs/qwen2_7b_to_1.5b.yaml}"     # path in this repository
NAME="${NAME:-adakd}"                                 # of the queued resource; one run each
ACCELERATOR="${ACCELERATOR:-v5litepod-16}"            # product name of one slice
SLICES="${SLICES:-1}"                                 # more than one: multislice
RUNTIME_VERSION="${RUNTIME_VERSION:-v2-alpha-tpuv5-lite}" # v6e: v2-alpha-tpuv6e, v5p: v2-alpha-tpuv5
CAPACITY="${CAPACITY:-spot}"                          # spot, reserved, on-demand, or flex-start (alpha)
MAX_RUN_DURATION="${MAX_RUN_DURATION:-7d}"            # flex-start only
EXTRAS="${EXTRAS:-tpu,gcs}"                           # of this package, to install
MAX_FAILURES="${MAX_FAILURES:-10}"                    # ends other than preemption that `all` starts again after
POLL_SECONDS="${POLL_SECONDS:-60}"

set -euo pipefail
cd "$(dirname "$0")/.."
source launch/steps.sh

WORKER="adakd_jax/launch/worker.sh"

tpu() {
    local track="$1" action="$2"
    shift 2
    # shellcheck disable=SC2086 # an empty track is no argument
    act gcloud $track compute tpus queued-resources "$action" "$@" --project="$PROJECT" --zone="$ZONE"
}

on_workers() {
    tpu "" ssh "$NAME" --node="$1" --worker="$1" --command="$2"
}

# Empty if there is no such queued resource.
current_state() {
    gcloud compute tpus queued-resources list --project="$PROJECT" --zone="$ZONE" \
        --filter="name~/$NAME\$" --format="value(state.state)"
}

ask_for_tpu() {
    local track="" nodes="--node-id=$NAME" tier=""
    [ "$SLICES" -eq 1 ] || nodes="--node-count=$SLICES --node-prefix=$NAME"
    case "$CAPACITY" in
    on-demand) ;;
    spot | reserved) tier="--$CAPACITY" ;;
    flex-start) track=alpha tier="--provisioning-model=flex-start --max-run-duration=$MAX_RUN_DURATION" ;;
    *) refuse "CAPACITY=$CAPACITY; valid: spot, reserved, on-demand, flex-start" ;;
    esac
    # shellcheck disable=SC2086 # several flags each, or none
    tpu "$track" create "$NAME" $nodes --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME_VERSION" $tier
}

create() {
    local state
    if [ -n "$DRY_RUN" ]; then
        ask_for_tpu
        echo "# wait until it is ACTIVE; one that is SUSPENDED (preempted) is deleted and asked for again"
        return
    fi
    while true; do
        state="$(current_state)"
        case "$state" in
        ACTIVE) return ;;
        "") ask_for_tpu ;;
        SUSPENDED) delete ;; # never comes back
        FAILED) fail "$NAME is FAILED; gcloud compute tpus queued-resources describe $NAME says why; then delete" ;;
        *) say "$NAME is $state" && sleep "$POLL_SECONDS" ;;
        esac
    done
}

install() {
    local bundle="${TMPDIR:-/tmp}/$NAME.bundle"
    [ -z "$(git status --porcelain --untracked-files=no)" ] || say "uncommitted changes are not installed"
    # A bundle, so that no worker needs access to a repository and run.json still names the commit.
    act git bundle create --quiet "$bundle" HEAD
    tpu "" scp "$bundle" "$NAME:adakd_jax.bundle" --node=all --worker=all
    on_workers all "if [ -e $WORKER ]; then bash $WORKER stop; fi"
    on_workers all "rm -rf adakd_jax && git clone --quiet --config=advice.detachedHead=false adakd_jax.bundle adakd_jax"
    on_workers all "EXTRAS=$(quoted "$EXTRAS") bash adakd_jax/launch/install.sh"
}

run() {
    on_workers all "bash $WORKER start $(training_flags)"
}

log() {
    local code=0
    while true; do
        on_workers 0 "bash $WORKER log" || code=$?
        case "$code" in
        0) break ;;
        127) fail "nothing is installed on $NAME; install first" ;;
        esac
        [ "$(current_state)" = ACTIVE ] || fail "$NAME is gone, probably preempted; resume goes on from $RUN_DIR"
        say "the connection broke (exit code $code); the training goes on"
        sleep "$POLL_SECONDS"
        code=0
    done
    on_workers all "bash $WORKER status"
}

resume() {
    create
    install
    run
}

delete() {
    if [ -z "$DRY_RUN" ] && [ -z "$(current_state)" ]; then
        say "there is no $NAME in $ZONE"
        return
    fi
    tpu "" delete "$NAME" --force --quiet
}

# A step in a process of its own: bash does not stop at errors inside a function whose exit code is looked at.
step() {
    bash launch/tpu_pod.sh "$1" ${DRY_RUN:+--dry-run} -- ${FLAGS[@]+"${FLAGS[@]}"}
}

all() {
    local code state failures=0
    while true; do
        code=0
        { step resume && step log; } || code=$?
        [ "$code" -ne 0 ] || break
        [ "$code" -ne 2 ] || refuse "wrong settings; $NAME is still there and costs: mend and resume, or delete"
        state="$(current_state)" || state="not known"
        if [ "$code" -ne 75 ] && [ "$state" != SUSPENDED ] && [ "$state" != SUSPENDING ]; then
            failures=$((failures + 1))
        fi
        [ "$failures" -le "$MAX_FAILURES" ] ||
            fail "failed $failures times; $NAME is still there and costs: delete gives it back"
        say "ended with exit code $code, $NAME is ${state:-gone}; starting again ($failures of $MAX_FAILURES failures)"
        sleep "$POLL_SECONDS"
    done
    if [ -n "$DRY_RUN" ]; then
        echo "# after a preemption or a failure, all of this again; when the run is finished:"
    else
        say "the run in $RUN_DIR is finished"
    fi
    delete
}

read_command_line "create install run log resume delete all" "$@"
require PROJECT ZONE RUN_DIR
require_bucket
"$STEP"
