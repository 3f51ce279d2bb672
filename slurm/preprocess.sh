#!/usr/bin/env bash
# Submits preproc_pipeline as jobs that wait for each other: each of its three steps in TASKS shares, followed by one job
# of the same step that looks whether all is there. In the run folder, the one with config.yaml:
#   bash slurm/preprocess.sh TASKS [--SBATCH-OPTION...] [OVERRIDE...]
#   bash slurm/preprocess.sh 16 --partition=batch --cpus-per-task=4 --mem=16G run_name=o4_scan
# As a rule the job after an array finds the set complete. It completes it where a network file system showed the last
# tasks the others' files too late; the scan's makes the statistics.
set -euo pipefail

script="$(dirname "${BASH_SOURCE[0]}")/preprocess.sbatch"
tasks="${1-}"
if [[ ! $tasks =~ ^[1-9][0-9]*$ ]]; then
    echo "How many tasks? Expected a number first, got '$tasks'." \
        "For instance: bash slurm/preprocess.sh 16 --partition=batch run_name=o4_scan" >&2
    exit 2
fi
shift
options=() overrides=()
for word in "$@"; do
    case "$word" in
    --?*) options+=("$word") ;;
    '~'* | [!-]*=*) overrides+=("$word") ;;
    *)
        echo "'$word' is neither an option of sbatch in one word (--partition=batch) nor an override (run_name=o4_scan)." >&2
        exit 2
        ;;
    esac
done
if [[ ! -f config.yaml ]]; then
    echo "No config.yaml in $PWD. Submit in the run folder; glitchflow init makes one." >&2
    exit 1
fi

array="--array=0-$((tasks - 1))"
submitted=()

submit() { # AFTER STEP SBATCH-OPTION...: sets job to the number of the job, which begins when AFTER has ended well
    local after="$1" step="$2"
    shift 2
    if ! job="$(sbatch --parsable --kill-on-invalid-dep=yes ${after:+"--dependency=afterok:$after"} \
        "${options[@]}" "$@" "$script" "$step" "${overrides[@]}")"; then
        echo "sbatch has refused a job of $step (above): neither it nor a later one is submitted." \
            "${submitted[*]:+To take back those before: scancel ${submitted[*]}}" >&2
        exit 1
    fi
    job="${job%%;*}"
    submitted+=("$job")
}

last=''
for step in Data-processor Annalisa-scan QT-dataset; do
    submit "$last" "$step" "$array"
    shares="$job"
    submit "$shares" "$step"
    last="$job"
    echo "$step: job $shares, $tasks tasks, then $last."
done
