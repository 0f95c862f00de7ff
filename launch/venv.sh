# shellcheck shell=bash
# Sourced by scripts that make .venv: which Python, and what to install into it.

SUPPORTED_PYTHONS="3.13 3.12 3.11" # the newest first

# Prints the path of a Python of this version, "3.13", that can make an environment: from PATH, pyenv or uv.
python_of() {
    local version="$1" root=/nowhere found candidate
    root="$(pyenv root 2>/dev/null)" || root=/nowhere
    for candidate in "python$version" "$root/versions/$version".*/bin/python python3 python; do
        # Debian keeps ensurepip, which fills an environment, in a package of its own.
        found="$("$candidate" -c 'import ensurepip, sys; print("%d.%d" % sys.version_info[:2], sys.executable)' \
            2>/dev/null)" || continue
        if [ "${found%% *}" = "$version" ]; then
            echo "${found#* }"
            return
        fi
    done
    uv python find --no-python-downloads "$version" 2>/dev/null
}

# Prints PYTHON if it is set, otherwise the newest Python that this package supports.
chosen_python() {
    local version
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
        return
    fi
    for version in $SUPPORTED_PYTHONS; do
        python_of "$version" && return
    done
    echo "${0##*/}: no Python found; valid: ${SUPPORTED_PYTHONS// /, }, with ensurepip (Debian: python3-venv)." \
        "PYTHON=/path/to/python names one" >&2
    return 2
}

# Makes the environment FOLDER, unless it is there, and installs the rest of the line into it with pip.
install_into() {
    local folder="$1" python
    shift
    if [ ! -x "$folder/bin/python" ]; then
        python="$(chosen_python)" || exit
        "$python" -m venv "$folder"
    fi
    "$folder/bin/python" -m pip install --quiet --quiet --disable-pip-version-check "$@"
}
