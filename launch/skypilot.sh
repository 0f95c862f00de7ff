#!/usr/bin/env bash
# Trains with SkyPilot (pip install skypilot, sky check), as the managed job of launch/skypilot.yaml. SkyPilot itself
# finds the hardware, installs, and starts the training again after a preemption.
#
#   bash launch/skypilot.sh STEP [--dry-run] [-- FLAGS OF THE TRAINING]
#
#   run       submit the job; asks before it spends money
#   log       stream its log
#   status    all jobs: how often each was recovered, how it ended
#   resume    run: after the job failed or was cancelled; goes on from RUN_DIR
#   delete    cancel the job and give the machines back; what the last checkpoint holds stays
#
# Any variable can be set from outside:
#   RUN_DIR=gs://my-bucket/run ACCELERATORS=A100-80GB:8 NODES=2 bash launch/skypilot.sh run

RUN_DIR="${RUN_DIR:-}"                            # required: run folder, gs:// or on a mounted disk
CONFIG="${CONFIG:-configs/qwen2_7b_to_1.5b.yaml}" # path in this repository
NAME="${NAME:-adakd}"                             # one job each
ACCELERATORS="${ACCELERATORS:-H100:8}"            # of a node; `sky gpus list` shows all, tpu-v6e-8 too
NODES="${NODES:-1}"
SPOT="${SPOT:-yes}"                               # yes or no
EXTRAS="${EXTRAS:-cuda12,gcs}"                    # of this package, to install; on TPUs: tpu,gcs

set -euo pipefail
cd "$(dirname "$0")/.."
source launch/steps.sh

run() {
    local spot
    case "$SPOT" in
    yes) spot=--use-spot ;;
    no) spot=--no-use-spot ;;
    *) refuse "SPOT=$SPOT; valid: yes, no" ;;
    esac
    act sky jobs launch launch/skypilot.yaml --name="$NAME" --gpus="$ACCELERATORS" --num-nodes="$NODES" "$spot" \
        --env="RUN_DIR=$RUN_DIR" --env="CONFIG=$CONFIG" --env="EXTRAS=$EXTRAS" \
        --env="FLAGS=$(quoted ${FLAGS[@]+"${FLAGS[@]}"})"
}

log() {
    act sky jobs logs --name="$NAME"
}

status() {
    act sky jobs queue
}

resume() {
    run
}

delete() {
    act sky jobs cancel --name="$NAME" --yes
}

read_command_line "run log status resume delete" "$@"
require RUN_DIR
"$STEP"
