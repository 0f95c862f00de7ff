#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster that has JobSet (one made by xpk has it), from a machine with git, docker,
# gcloud and kubectl, signed in. JobSet itself starts the training again after a preemption or a failure.
#
#   bash launch/gke.sh STEP [--dry-run] [-- FLAGS OF THE TRAINING]
#
#   install   build the image of the commit checked out here, without uncommitted changes, and push it
#   run       create the JobSet of launch/gke_jobset.yaml; one that is there is left alone
#   log       stream the log of the first host; call it again after a restart
#   status    how often it was restarted, how it ended
#   resume    delete and run: after MAX_RESTARTS, or with another image; goes on from RUN_DIR
#   delete    stop the training, which saves, and remove the JobSet; xpk workload delete does the same
#
# Any variable can be set from outside:
#   PROJECT=my-project LOCATION=us-west4 CLUSTER=tpus RUN_DIR=gs://my-bucket/run IMAGE=… bash launch/gke.sh run

PROJECT="${PROJECT:-}"                            # required: the Google Cloud project
LOCATION="${LOCATION:-}"                          # required: region or zone of the cluster
CLUSTER="${CLUSTER:-}"                            # required
IMAGE="${IMAGE:-}"                                # required: us-docker.pkg.dev/PROJECT/REPOSITORY/adakd_jax:TAG
RUN_DIR="${RUN_DIR:-}"                            # required: run folder, gs://
CONFIG="${CONFIG:-configs/qwen2_7b_to_1.5b.yaml}" # path in this repository
NAME="${NAME:-adakd}"                             # at most 28 characters, as in xpk
TPU_TYPE="${TPU_TYPE:-tpu-v5-lite-podslice}"      # v6e: tpu-v6e-slice, v5p: tpu-v5p-slice
TOPOLOGY="${TOPOLOGY:-4x4}"                       # of one slice, in chips
CHIPS_PER_HOST="${CHIPS_PER_HOST:-4}"
SLICES="${SLICES:-1}"                             # more than one: multislice
QUEUE="${QUEUE:-multislice-queue}"                # xpk's Kueue queue; without Kueue it means nothing
MAX_RESTARTS="${MAX_RESTARTS:-100}"               # preemptions count
GRACE_SECONDS="${GRACE_SECONDS:-120}"             # to save after SIGTERM; a spot node grants less
EXTRAS="${EXTRAS:-tpu,gcs}"                       # of this package, in the image

set -euo pipefail
cd "$(dirname "$0")/.."
source launch/steps.sh

# Every ${NAME} in the manifest becomes the value of that variable.
manifest() {
    local text name chips HOSTS flags
    chips=$((${TOPOLOGY//x/*}))
    HOSTS=$((chips / CHIPS_PER_HOST))
    [ $((HOSTS * CHIPS_PER_HOST)) -eq "$chips" ] ||
        refuse "CHIPS_PER_HOST=$CHIPS_PER_HOST; valid: a divisor of the $chips chips of TOPOLOGY=$TOPOLOGY"
    flags="$(training_flags)"
    text="$(cat launch/gke_jobset.yaml)"
    for name in NAME QUEUE MAX_RESTARTS SLICES HOSTS GRACE_SECONDS TPU_TYPE TOPOLOGY IMAGE CHIPS_PER_HOST; do
        text=${text//\$\{$name\}/"${!name}"}
    done
    text=${text//\$\{FLAGS\}/"$flags"}
    printf '%s\n' "$text"
}

its_pods() {
    echo "jobset.sigs.k8s.io/jobset-name=$NAME"
}

sign_in() {
    act gcloud container clusters get-credentials "$CLUSTER" --location="$LOCATION" --project="$PROJECT"
}

# The image holds a clone, so that run.json names the commit.
install() {
    local clone="${TMPDIR:-/tmp}/adakd_jax-$NAME"
    [ -z "$(git status --porcelain --untracked-files=no)" ] || say "uncommitted changes are not installed"
    act rm -rf "$clone"
    act git clone --quiet --depth=1 --config=advice.detachedHead=false "file://$PWD" "$clone"
    act docker build --tag="$IMAGE" --build-arg="EXTRAS=$EXTRAS" --file="$clone/launch/Dockerfile" "$clone"
    act docker push "$IMAGE"
}

run() {
    local file="${TMPDIR:-/tmp}/$NAME.yaml"
    sign_in
    if [ -n "$DRY_RUN" ]; then
        manifest
    else
        manifest >"$file"
    fi
    act kubectl apply --filename="$file"
}

log() {
    sign_in
    act kubectl logs --follow --tail=100 --container=jax-tpu \
        --selector="$(its_pods),jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0"
}

status() {
    sign_in
    act kubectl get jobset "$NAME"
    act kubectl get pods --selector="$(its_pods)"
}

resume() {
    delete
    run
}

delete() {
    sign_in
    act kubectl delete jobset "$NAME" --ignore-not-found
}

read_command_line "install run log status resume delete" "$@"
require PROJECT LOCATION CLUSTER IMAGE RUN_DIR
require_bucket
"$STEP"
