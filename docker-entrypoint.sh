#!/usr/bin/env bash
# Entry point of the container. What begins with + - ~ or holds = goes to `itwinai exec-pipeline`; anything else is a
# command of its own: glitchflow check, mlflow server, torchrun, bash.
set -euo pipefail

say() { printf 'glitchflow container: %s\n' "$*" >&2; }

case "${1-}" in -* | +* | '~'* | *=*) set -- itwinai exec-pipeline "$@" ;; esac

# A pipeline works in a run folder. Where it gets another configuration, or is only asked for help, none is needed.
if [[ "${1-} ${2-}" == "itwinai exec-pipeline" && "$*" != *--config-* && "$*" != *\ -c[dnp]* && "$*" != *--*help* ]]
then
    if [[ ! -w . ]]; then
        say "user $(id -u) cannot write to $PWD. Mount a folder of that user's there, and run as its owner:" \
            "docker run --user \"\$(id -u):\$(id -g)\" -v \"\$PWD:\$PWD\" -w \"\$PWD\" ..."
        exit 1
    fi
    if [[ ! -e config.yaml ]]; then
        if [[ -n "$(ls -A)" ]]; then
            say "$PWD has no config.yaml, but other things, so it is left as it is. Mount the run folder, and work in it" \
                "(-v \"\$PWD:\$PWD\" -w \"\$PWD\"): an empty one is filled. 'glitchflow init .' puts the files here."
            exit 1
        fi
        glitchflow init . >/dev/null
        say "$PWD was empty: config.yaml, conf/ and slurm/ are there now, to be edited."
    fi
    if [[ "$(findmnt --noheadings --output TARGET --target . || true)" == / ]]; then
        say "nothing is mounted at $PWD: what is written there is gone with the container" \
            "(-v \"\$PWD:\$PWD\" -w \"\$PWD\")."
    fi
fi
exec "$@"
