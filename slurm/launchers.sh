#!/usr/bin/env bash
# How the presets in conf/slurm/ start a training. Sourced by the batch scripts that `itwinai generate-slurm` writes.
unset PYTHONDONTWRITEBYTECODE # without byte code every start takes 30 s more
export OMP_WAIT_POLICY=passive

# itwinai's name for what starts the processes of ddp and deepspeed: here tasks of SLURM with the environment that torchrun
# would give them, so that signals reach the training itself and its exit status reaches the job.
# One process a GPU; without GPUs GLITCHFLOW_PROCESSES on each node, 1 if it is not set.
torchrun-launcher() { # COMMAND
    local per_node="${SLURM_GPUS_PER_NODE:-0}" nodes="${SLURM_JOB_NUM_NODES:-1}" threads
    per_node="${per_node##*:}" # a100:4
    ((per_node > 0)) || per_node="${GLITCHFLOW_PROCESSES:-1}"
    threads=$((${SLURM_CPUS_PER_TASK:-1} / per_node))
    ((threads > 0)) || threads=1
    MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)${GLITCHFLOW_HOST_SUFFIX:-}"
    export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000)) TORCHELASTIC_RUN_ID="$SLURM_JOB_ID"
    export WORLD_SIZE=$((per_node * nodes)) LOCAL_WORLD_SIZE="$per_node" OMP_NUM_THREADS="$threads"
    # shellcheck disable=SC2016  # each task expands its own
    srun --ntasks="$WORLD_SIZE" --ntasks-per-node="$per_node" --cpus-per-task="$threads" --cpu-bind=none \
        --kill-on-bad-exit=1 bash -c 'export RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID"; exec '"$1"
}

# The same in a container (container_path of the preset). GLITCHFLOW_CONTAINER_OPTIONS: --nv if not set; --rocm on AMD.
torchrun-launcher-container() { # COMMAND
    torchrun-launcher "singularity exec --bind $PWD ${GLITCHFLOW_CONTAINER_OPTIONS:---nv} $CONTAINER_PATH $1"
}

# A training that outlives its time limit. SLURM sends USR1 to the batch script in good time (--signal=B:USR1@120). It goes
# to the training, which writes a checkpoint and ends with status 75; then the job goes back into the queue. Where the first
# process to leave takes others with it srun says 143, and where USR1 comes after the training 138: any failure counts.
requeue-launcher() { # COMMAND
    local training status=0 ended asked='' woken
    trap 'woken=yes asked=yes; scancel --signal=USR1 "$SLURM_JOB_ID"' USR1
    torchrun-launcher "$1" &
    training=$!
    while # a signal ends the waiting, not the training
        woken=''
        wait "$training"
        ended=$?
        ((ended == 127)) || status=$ended
        [[ -n $woken ]]
    do :; done
    if [[ $status != 0 && -n $asked ]]; then
        echo "asked to end (status $status): job $SLURM_JOB_ID goes back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$status"
}
