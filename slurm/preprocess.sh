#!/usr/bin/env bash
# Submits preproc_pipeline as four jobs that wait for each other: Data-processor in TASKS shares, Annalisa-scan,
# QT-dataset in TASKS shares, and a last look. In the run folder, the one with config.yaml:
#   slurm/preprocess.sh TASKS [--SBATCH-OPTION...] [OVERRIDE...]
#   slurm/preprocess.sh 16 --partition=batch --cpus-per-task=4 --mem=16G run_name=o4_scan
# A job after an array goes through the array's step again. As a rule it finds the set complete; it completes it where
# a network file system showed the last tasks the others' files too late.
set -euo pipefail

job="$(dirname "${BASH_SOURCE[0]}")/preprocess.sbatch"
tasks="${1:?how many tasks?}"
shift
options=() overrides=()
for word in "$@"; do
    if [[ $word == --* ]]; then options+=("$word"); else overrides+=("$word"); fi
done

array="--array=0-$((tasks - 1))"

submit() { # AFTER STEPS SBATCH-OPTION...: the number of the job, which begins when AFTER has ended well
    local after="$1" steps="$2" number
    shift 2
    number="$(sbatch --parsable --kill-on-invalid-dep=yes ${after:+"--dependency=afterok:$after"} \
        "${options[@]}" "$@" "$job" "$steps" "${overrides[@]}")"
    echo "${number%%;*}"
}

events="$(submit '' Data-processor "$array")"
scan="$(submit "$events" Data-processor,Annalisa-scan)"
maps="$(submit "$scan" QT-dataset "$array")"
last="$(submit "$maps" QT-dataset)"
echo "Data-processor: job $events, $tasks tasks. Annalisa-scan: $scan. QT-dataset: $maps, $tasks tasks, then $last."
