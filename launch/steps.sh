# shellcheck shell=bash
# What the launchers share: their command line, and a dry run that prints every command instead of running it.
# Sourced after the header of variables, which --help shows.

usage() {
    sed -n '2,/^set -euo pipefail$/p' "$0" | sed '$d; s/^# \{0,1\}//'
}

say() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
}

fail() {
    say "$@"
    exit 1
}

refuse() {
    say "$@"
    exit 2
}

# Sets STEP, DRY_RUN and FLAGS from: STEP [--dry-run] [-- FLAGS]. The first argument lists the valid steps.
read_command_line() {
    local steps="$1" step
    shift
    STEP="" DRY_RUN="" FLAGS=()
    while [ $# -gt 0 ]; do
        case "$1" in
        -h | --help) usage && exit 0 ;;
        --dry-run) DRY_RUN=yes ;;
        --) shift && FLAGS=("$@") && break ;;
        -*) refuse "unknown flag $1; valid: --dry-run, --help, and the training's own flags after --" ;;
        *) STEP="${STEP:+$STEP }$1" ;;
        esac
        shift
    done
    for step in $steps; do
        [ "$STEP" != "$step" ] || return 0
    done
    refuse "no step '$STEP'; valid: one of $steps (--help explains them)"
}

# Refuses to go on while one of the named variables is empty.
require() {
    local name missing=""
    for name in "$@"; do
        [ -n "${!name}" ] || missing="$missing $name"
    done
    [ -z "$missing" ] || refuse "set$missing; for example: ${missing# }=… bash $0 $STEP"
}

# The words, as a shell reads them.
quoted() {
    local word line="" quote="'" escaped="'\\''"
    for word in "$@"; do
        case "$word" in
        "" | *[!A-Za-z0-9_./:=@%+,-]*) line="$line '${word//$quote/$escaped}'" ;;
        *) line="$line $word" ;;
        esac
    done
    printf '%s' "${line# }"
}

require_bucket() {
    case "$RUN_DIR" in
    gs://*) ;;
    *) refuse "RUN_DIR=$RUN_DIR; valid: a gs:// path (a disk of the cloud's machines goes when they go)" ;;
    esac
}

# Runs a command, or prints it in a dry run.
act() {
    if [ -n "$DRY_RUN" ]; then
        printf '%s\n' "$(quoted "$@")"
    else
        "$@"
    fi
}

# The flags of the training, quoted for another shell.
training_flags() {
    # Before version 4.4, bash takes an empty array for an unset variable.
    quoted --config "$CONFIG" --run_dir "$RUN_DIR" ${FLAGS[@]+"${FLAGS[@]}"}
}
