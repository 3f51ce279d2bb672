#!/usr/bin/env bash
# What all batch scripts share: sourced, in the run folder, by slurm/*.sbatch and by the scripts that
# `itwinai generate-slurm` makes of the presets in conf/slurm/.
# GLITCHFLOW_VENV names the environment (venv, conda), if it is not active already where the job is submitted.
unset PYTHONDONTWRITEBYTECODE # without byte code every start takes 30 s more
export OMP_WAIT_POLICY=passive
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun does not take it from sbatch
export SLURM_EXPORT_ENV=ALL # what sbatch --export=... held back from the job, srun would hold back from its tasks
if [[ -n ${GLITCHFLOW_VENV:-} ]]; then
    if [[ ! -x $GLITCHFLOW_VENV/bin/itwinai ]]; then
        echo "GLITCHFLOW_VENV=$GLITCHFLOW_VENV has no bin/itwinai. Name the folder of the environment." >&2
        exit 1
    fi
    PATH="$(realpath "$GLITCHFLOW_VENV")/bin:$PATH"
    export PATH # not yet in the environment after --export=NONE
fi
if [[ ! -f config.yaml ]]; then
    echo "No config.yaml in $PWD. Submit in the run folder (glitchflow init makes one), or with --chdir=FOLDER." >&2
    exit 1
fi

need-itwinai() {
    if ! command -v itwinai >/dev/null; then
        echo "itwinai is not on this job's PATH. Activate the environment before you submit, or name its folder:" \
            "sbatch --export=ALL,GLITCHFLOW_VENV=FOLDER ..." >&2
        exit 1
    fi
}

# A pipeline that makes blocks of continuous data: all of them, or in a task of an array its share.
blocks-launcher() { # PIPELINE [OVERRIDE...]
    local engine=local pipeline="$1"
    need-itwinai
    if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then engine=slurm-array; fi
    exec srun itwinai exec-pipeline "+pipe_key=$pipeline" "engine.name=$engine" "${@:2}"
}

# itwinai's name for what starts the processes of ddp and deepspeed: here tasks of SLURM with the environment that torchrun
# would give them, so that signals reach the training itself and its exit status reaches the job.
# One process a GPU; without GPUs GLITCHFLOW_PROCESSES on each node, 1 if it is not set.
torchrun-launcher() { # COMMAND
    local gpus="${SLURM_GPUS_ON_NODE:-${SLURM_GPUS_PER_NODE:-0}}" nodes="${SLURM_JOB_NUM_NODES:-1}"
    local per_node threads bind=()
    [[ -n ${CONTAINER_PATH:-} ]] || need-itwinai
    per_node="${gpus##*:}" # a100:4
    if ((per_node > 0)); then
        bind=(--gpu-bind=none) # each process sees all GPUs and takes the one of its LOCAL_RANK
    else
        per_node="${GLITCHFLOW_PROCESSES:-1}"
    fi
    threads=$((${SLURM_CPUS_PER_TASK:-1} / per_node))
    ((threads > 0)) || threads=1
    MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)${GLITCHFLOW_HOST_SUFFIX:-}"
    export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000)) TORCHELASTIC_RUN_ID="$SLURM_JOB_ID"
    export WORLD_SIZE=$((per_node * nodes)) LOCAL_WORLD_SIZE="$per_node" OMP_NUM_THREADS="$threads"
    # shellcheck disable=SC2016  # each task expands its own
    srun --ntasks="$WORLD_SIZE" --ntasks-per-node="$per_node" --cpus-per-task="$threads" --cpu-bind=none "${bind[@]}" \
        --kill-on-bad-exit=1 bash -c 'export RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID"; exec '"$1"
}

# The same in a container (container_path of the preset). GLITCHFLOW_CONTAINER_OPTIONS: --nv if not set; --rocm on AMD.
torchrun-launcher-container() { # COMMAND
    if [[ ! -e $CONTAINER_PATH ]]; then
        echo "No container image $CONTAINER_PATH in $PWD. Build it (docs/containers-and-clusters.md), or name another" \
            "one as container_path." >&2
        exit 1
    fi
    torchrun-launcher "singularity exec --bind $(printf %q "$PWD") ${GLITCHFLOW_CONTAINER_OPTIONS:---nv} \
        $(printf %q "$CONTAINER_PATH") $1"
}

# A training that outlives its time limit. SLURM sends USR1 to the batch script in good time (--signal=B:USR1@120). It goes
# to the training, which writes a checkpoint and ends with status 75; then the job goes back into the queue. Where the first
# process to leave takes others with it srun says 143, and where USR1 comes after the training 138: any failure counts.
requeue-launcher() { # COMMAND
    local status=0 asked=''
    handing-on torchrun-launcher "$1"
    if [[ $status != 0 && -n $asked ]]; then
        echo "asked to end (status $status): job $SLURM_JOB_ID goes back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$status"
}

# What runs until it is told to end, and goes on where it was: asked two minutes before the time limit, it ends in good
# order with status 0, and the job goes back into the queue.
endless-launcher() { # PIPELINE [OVERRIDE...]
    local status=0 asked=''
    need-itwinai
    handing-on srun itwinai exec-pipeline "+pipe_key=$1" "${@:2}"
    if [[ -n $asked ]]; then
        echo "asked to end (status $status): job $SLURM_JOB_ID goes back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$status"
}

# Runs something in steps of the job and hands USR1 on to it. Sets `status`, and `asked` if it came.
handing-on() { # COMMAND...
    local running ended woken
    trap 'woken=yes asked=yes; scancel --signal=USR1 "$SLURM_JOB_ID"' USR1
    "$@" &
    running=$!
    while # a signal ends the waiting, not what runs
        woken=''
        wait "$running"
        ended=$?
        ((ended == 127)) || status=$ended
        [[ -n $woken ]]
    do :; done
}
