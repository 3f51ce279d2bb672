#!/usr/bin/env bash
# Submits preproc_pipeline as jobs that wait for each other: each of its three steps in TASKS shares, followed by one job
# of the same step that looks whether all is there. In the run folder, the one with config.yaml:
#   bash slurm/preprocess.sh TASKS [--SBATCH-OPTION...] [OVERRIDE...]
#   bash slurm/preprocess.sh 16 --partition=batch --cpus-per-task=4 --mem=16G run_name=o4_scan
# As a rule the job after an array finds the set complete. It completes it where a network file system showed the last
# tasks the others' files too late; the scan's makes the statistics.
set -euo pipefail

job="$(dirname "${BASH_SOURCE[0]}")/preprocess.sbatch"
tasks="${1-}"
if [[ ! $tasks =~ ^[1-9][0-9]*$ ]]; then
    echo "How many tasks? Expected a number first, got '$tasks'." \
        "For instance: bash slurm/preprocess.sh 16 --partition=batch run_name=o4_scan" >&2
    exit 2
fi
if [[ ! -f config.yaml ]]; then
    echo "No config.yaml in $PWD. Submit in the run folder; glitchflow init makes one." >&2
    exit 1
fi
shift
options=() overrides=()
for word in "$@"; do
    if [[ $word == --* ]]; then options+=("$word"); else overrides+=("$word"); fi
done

array="--array=0-$((tasks - 1))"

submit() { # AFTER STEP SBATCH-OPTION...: the number of the job, which begins when AFTER has ended well
    local after="$1" step="$2" number
    shift 2
    number="$(sbatch --parsable --kill-on-invalid-dep=yes ${after:+"--dependency=afterok:$after"} \
        "${options[@]}" "$@" "$job" "$step" "${overrides[@]}")"
    echo "${number%%;*}"
}

last=''
for step in Data-processor Annalisa-scan QT-dataset; do
    shares="$(submit "$last" "$step" "$array")"
    last="$(submit "$shares" "$step")"
    echo "$step: job $shares, $tasks tasks, then $last."
done
