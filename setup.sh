#!/usr/bin/env bash
# Makes the Python environment and the run folders of glitchflow_plugin.
# Safe to run again (seconds when nothing has changed) and from any directory.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: setup.sh [--help]

Makes .venv beside this script with the versions pinned in constraints.txt, and the
run folders that conf/saveconf.yaml names.

Environment variables:
  PYTHON                  the Python to use (3.11 or 3.12; default: the first one found)
  GLITCHFLOW_VENV         the environment to make (default: .venv beside this script)
  GLITCHFLOW_EXTRAS       optional dependency groups (default: dev,docs,frames,onnx,ui; empty: none)
  GLITCHFLOW_MIN_FREE_GB  free disk space to ask for before installing (default: 10)
  UV                      the uv program to use (default: the one found, else installed)

uv and pip read their registry settings from their own configuration.
HELP
}

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: ERROR: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

case "${1:-}" in
"") ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    usage >&2
    exit 2
    ;;
esac

# Without byte code beside the packages every start of a step compiles torch and mlflow again (30 to 40 s, not 10 s).
unset PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX
# An environment or search path of the caller must not leak into ours.
unset VIRTUAL_ENV PYTHONPATH PYTHONHOME

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
cd "$root"
venv="${GLITCHFLOW_VENV:-$root/.venv}"
extras="${GLITCHFLOW_EXTRAS-dev,docs,frames,onnx,ui}"
min_free_gb="${GLITCHFLOW_MIN_FREE_GB:-10}"
stamp="$venv/.glitchflow-setup"
python="$venv/bin/python"

version_ok() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }

version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo "not a working Python"; }

find_python() {
    local candidate
    if [[ -n "${PYTHON:-}" ]]; then
        version_ok "$PYTHON" || fail "Python 3.11 or 3.12 is needed, but PYTHON=$PYTHON is: $(version_of "$PYTHON")." \
            "Set PYTHON to another interpreter, for instance: PYTHON=python3.11 ./setup.sh"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3 python; do
        if command -v "$candidate" >/dev/null && version_ok "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "Python 3.11 or 3.12 is needed; python3 here is: $(version_of python3)." \
        "Install one of them (Debian, Ubuntu: apt install python3.11 python3.11-venv; conda: conda create -n py311 python=3.11)" \
        "and run ./setup.sh again, or name it: PYTHON=/path/to/python3.11 ./setup.sh"
}

# Everything that decides what is installed.
fingerprint() {
    {
        cat pyproject.toml constraints.txt
        printf 'extras=%s\nversion of setup=1\n' "$extras"
        version_of "$python"
    } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

is_complete() {
    [[ -x "$python" && -f "$stamp" ]] && version_ok "$python" && [[ "$(cat "$stamp")" == "$(fingerprint)" ]] &&
        "$python" - <<'PY' >/dev/null 2>&1
from importlib import metadata

import glitchflow_plugin  # noqa: F401

for package in ("itwinai", "torch", "mlflow", "h5py", "gwpy"):
    metadata.version(package)
PY
}

check_disk() {
    local folder="$1" free_kb
    free_kb="$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')"
    if ((free_kb < min_free_gb * 1024 * 1024)); then
        fail "about $min_free_gb GB of free disk space are needed for the environment, $folder has $((free_kb / 1024 / 1024)) GB." \
            "Free some space, or put the environment on another disk: GLITCHFLOW_VENV=/other/disk/venv ./setup.sh" \
            "(torch comes with its CUDA libraries; GLITCHFLOW_MIN_FREE_GB changes the number.)"
    fi
}

# The uv that is there, else one in a small environment of its own.
find_uv() {
    local candidate bootstrap="$root/build/bootstrap"
    for candidate in "${UV:-}" uv "$venv/bin/uv" "$bootstrap/bin/uv"; do
        if [[ -n "$candidate" ]] && "$candidate" --version >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "uv is not installed: putting it into build/bootstrap" >&2
    "$base_python" -m venv --clear "$bootstrap" >&2 ||
        fail "$base_python cannot make environments (Debian, Ubuntu: apt install python3-venv)."
    "$bootstrap/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt uv >&2 ||
        fail "uv could not be installed. Is the package registry within reach? Try: $bootstrap/bin/python -m pip install uv"
    printf '%s\n' "$bootstrap/bin/uv"
}

install() {
    local base_python uv target="." quiet=() interrupted=""
    base_python="$(find_python)"
    mkdir -p "$(dirname "$venv")"
    check_disk "$(dirname "$venv")"
    uv="$(find_uv)"
    # Python itself comes from the machine: nothing is downloaded but packages.
    export UV_PYTHON_DOWNLOADS=never
    if ! { [[ -x "$python" ]] && version_ok "$python"; }; then
        if [[ -e "$venv" && ! -f "$venv/pyvenv.cfg" ]]; then
            fail "$venv exists and is no Python environment." "Move it away, or choose another place with GLITCHFLOW_VENV."
        fi
        say "making $venv with Python $(version_of "$base_python")"
        "$uv" venv --quiet --clear --python "$(command -v "$base_python")" "$venv"
    fi
    rm -f "$stamp"
    if [[ -e "$stamp.begun" ]]; then interrupted=yes; fi
    touch "$stamp.begun"
    if [[ -n "$extras" ]]; then target=".[$extras]"; fi
    say "installing the packages of constraints.txt (about 3 GB to download the first time)"
    [[ -t 2 ]] || quiet=(--quiet) # progress bars are for people
    # The byte code of all packages is compiled here, once.
    "$uv" pip install "${quiet[@]}" --python "$python" --compile-bytecode \
        --constraints constraints.txt --build-constraints constraints.txt --editable "$target" ||
        fail "the packages could not be installed; the lines above say why." \
            "Free space here: $(df -Ph "$(dirname "$venv")" | awk 'NR == 2 { print $4 }'). Run ./setup.sh again to continue."
    # What an interrupted run installed has no byte code: uv compiles what it installs.
    if [[ -n "$interrupted" ]]; then "$python" -m compileall -q -j 0 "$venv"/lib/python3*/site-packages >/dev/null 2>&1 || true; fi
    fingerprint >"$stamp"
    rm -f "$stamp.begun"
}

if is_complete; then
    say "environment is up to date"
else
    install
fi
"$venv/bin/glitchflow" folders .
say "done. Next: make demo, or: source ${venv#"$root/"}/bin/activate && itwinai exec-pipeline +pipe_key=simulate_pipeline"
