#!/usr/bin/env bash
# Trains on GPU nodes of a SLURM cluster with a disk that all nodes share; run it there, in a checkout on that disk.
# Before its time is up the job saves and queues itself again, until the run is finished.
#
#   bash launch/slurm.sh STEP [--dry-run] [-- FLAGS OF THE TRAINING]
#
#   install   make .venv here, once
#   run       submit the job; waits for another of the same name to end
#   log       stream its log
#   status    where it stands in the queue
#   resume    run: after the job failed or was cancelled; goes on from RUN_DIR
#   delete    cancel the job; it has the cluster's KillWait (often 30 s) to save
#
# Any variable can be set from outside:
#   RUN_DIR=runs/mine PARTITION=gpu NODES=2 TIME=12:00:00 bash launch/slurm.sh run

RUN_DIR="${RUN_DIR:-}"                            # required: run folder on the shared disk, or gs://
CONFIG="${CONFIG:-configs/qwen2_7b_to_1.5b.yaml}" # path in this repository
NAME="${NAME:-adakd}"                             # of the job
PARTITION="${PARTITION:-}"                        # the cluster's default if empty
ACCOUNT="${ACCOUNT:-}"                            # likewise
NODES="${NODES:-1}"
GPUS_PER_NODE="${GPUS_PER_NODE:-8}"               # one process each
CPUS_PER_GPU="${CPUS_PER_GPU:-8}"
TIME="${TIME:-24:00:00}"                          # of one start
SAVE_SECONDS="${SAVE_SECONDS:-300}"               # before its end, to save in
MAX_STARTS="${MAX_STARTS:-50}"
LOG="${LOG:-slurm-$NAME.log}"
EXTRAS="${EXTRAS:-cuda12,gcs}"                    # of this package, to install
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"           # INFO when nodes do not find each other
# NCCL_SOCKET_IFNAME=ib0, set from outside, names the network between nodes where NCCL picks the wrong one.

set -euo pipefail
# SLURM runs a copy of this file, in the folder that --chdir names.
[ -n "${SLURM_JOB_ID:-}" ] || cd "$(dirname "$0")/.."
source launch/steps.sh

install() {
    act env EXTRAS="$EXTRAS" bash launch/install.sh
}

run() {
    act sbatch --job-name="$NAME" --dependency=singleton --chdir="$PWD" \
        ${PARTITION:+--partition="$PARTITION"} ${ACCOUNT:+--account="$ACCOUNT"} --time="$TIME" \
        --nodes="$NODES" --ntasks-per-node="$GPUS_PER_NODE" --gpus-per-node="$GPUS_PER_NODE" \
        --cpus-per-task="$CPUS_PER_GPU" --requeue --signal="B:USR1@$SAVE_SECONDS" \
        --output="$LOG" --open-mode=append launch/slurm.sh job -- ${FLAGS[@]+"${FLAGS[@]}"}
}

# In the job. USR1 rather than TERM marks the end of the time: scancel sends TERM, and what it ends stays ended.
job() {
    local signals=0 seen code=0 training
    # This TERM reaches the processes of srun, not this script.
    trap 'signals=$((signals + 1)); scancel --signal=TERM "$SLURM_JOB_ID"' USR1
    # jax.distributed reads SLURM's variables and gives the process of rank i on a node its GPU i: all must be visible.
    srun --kill-on-bad-exit=1 --gpu-bind=none \
        .venv/bin/python -m adakd_jax.train --config "$CONFIG" --run_dir "$RUN_DIR" ${FLAGS[@]+"${FLAGS[@]}"} &
    training=$!
    # A signal ends `wait` early, with the signal's code instead of the training's.
    while true; do
        seen=$signals code=0
        wait "$training" || code=$?
        [ "$seen" -ne "$signals" ] || break
    done
    [ "$signals" -gt 0 ] || exit "$code"
    [ "${SLURM_RESTART_COUNT:-0}" -lt "$MAX_STARTS" ] || fail "started again $MAX_STARTS times without coming to the end"
    say "the time is up, the training ended with exit code $code; queued again"
    scontrol requeue "$SLURM_JOB_ID"
}

log() {
    act tail -n 100 -F "$LOG"
}

status() {
    act squeue --me --name="$NAME"
}

resume() {
    run
}

delete() {
    act scancel --me --name="$NAME"
}

read_command_line "install run job log status resume delete" "$@"
require RUN_DIR
"$STEP"
