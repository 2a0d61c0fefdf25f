# shellcheck shell=bash
# launch.sh: what the job scripts share; they source it after setting `name`, their own, and `jobs`, the folder where
# they and this file lie.

in_slurm=${SLURM_JOB_ID:+yes}

fail() {
    echo "$name: $*" >&2
    exit 2
}

# The program: what LONGHAUL says, and no other than that; else the checkout's, or the one in PATH.
find_program() {
    if [ -n "${LONGHAUL:-}" ]; then
        type -P "$LONGHAUL" || fail "LONGHAUL is $LONGHAUL, which is no program, neither by its path nor in PATH"
    else
        type -P build/longhaul || type -P "$jobs/../build/longhaul" || type -P longhaul ||
            fail "no longhaul program in build/ or in PATH; build it (jobs/quickstart.sh) or set LONGHAUL"
    fi
}

# options_of NAME...: puts "--name value" into the array `command` for each of these variables that is set.
options_of() {
    local variable option
    for variable in "$@"; do
        option=${variable,,}
        [ -z "${!variable:-}" ] || command+=("--${option//_/-}" "${!variable}")
    done
}

# With GPUS the program computes on a GPU or says why it cannot, instead of taking the CPU.
device_option() {
    [ -z "${GPUS:-}" ] || command+=(--device cuda)
}

# The script's own --ntasks makes a maximum of --ntasks-per-node: fewer ranks than meant, and nothing else would say so.
warn_of_few_tasks() {
    local meant=$((${SLURM_JOB_NUM_NODES:-1} * ${SLURM_NTASKS_PER_NODE:-0}))
    if [ "${SLURM_NTASKS:-1}" -lt "$meant" ]; then
        echo "$name: warning: the job has ${SLURM_NTASKS:-1} tasks, not $SLURM_NTASKS_PER_NODE on each of" \
            "${SLURM_JOB_NUM_NODES:-1} nodes; if these were meant, submit it with --ntasks=$meant as well" >&2
    fi
}

# Puts into the array `launch` what starts NTASKS ranks. srun starts them where it can speak PMIx with Open MPI; a
# wrong PMI would start NTASKS programs of one rank each, which the program itself refuses. Slurm since 22.05 does not
# hand --cpus-per-task on to srun. --wait, not --kill-on-bad-exit: ranks that end together with code 75 must not be
# shot while they do.
choose_launch() {
    local kinds=
    if [ -n "$in_slurm" ] && [ "$NTASKS" -gt "${SLURM_NTASKS:-1}" ]; then
        fail "NTASKS is $NTASKS, but the job has ${SLURM_NTASKS:-1} tasks; submit it with --ntasks=$NTASKS"
    fi
    # Not in a pipe: grep may end before srun has written all, and a srun killed for that counts as none.
    [ -z "$in_slurm" ] || kinds=$(srun --mpi=list 2>&1) || true
    if grep -qw pmix <<<"$kinds"; then
        export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
        launch=(srun --mpi=pmix --ntasks="$NTASKS" --wait=60)
        # Where each task has GPUs of its own, srun hands them out as the job has them.
        [ -z "${GPUS:-}" ] || [ -n "${SLURM_GPUS_PER_TASK:-}" ] || launch+=(--gres="gpu:$GPUS")
    else
        launch=(mpirun -n "$NTASKS" --bind-to none)
        [ -n "$in_slurm" ] || launch+=(--oversubscribe)
        [ "$(id -u)" -ne 0 ] || launch+=(--allow-run-as-root)
    fi
}

# USR1 is Slurm's warning before the time limit, TERM an order to stop; to the program both mean: save and end.
# wait returns early when a signal comes, and then has to be called again for the program's own exit code.
# The traps are there before the program is.
wait_for_program() {
    local child='' interrupted='' result
    warned=
    trap 'warned=yes interrupted=yes; kill -USR1 $child 2>/dev/null || true' USR1
    trap 'interrupted=yes; kill -USR1 $child 2>/dev/null || true' TERM INT
    "$@" &
    child=$!
    [ -z "$interrupted" ] || kill -USR1 "$child" 2>/dev/null || true # it came before there was a child
    status=0
    while :; do
        interrupted=
        result=0
        wait "$child" || result=$?
        [ "$result" -eq 127 ] || status=$result
        [ -n "$interrupted" ] || break
    done
}

# What has been finished in OUT: the parts of documents (needle: the trials), by name and size.
finished() {
    find "$OUT/parts" "$OUT/trials.jsonl" '(' -name '*.h5' -o -name '*.jsonl' ')' -printf '%p %s\n' 2>/dev/null |
        sort || true
}

# run_program COMMAND...: on NTASKS ranks; exits with its code. After Slurm's warning the job queues itself again, but
# only then: a job that someone cancelled must not come back by itself. Nor must one in whose time nothing is finished:
# what is begun starts over, and so would the job, for ever.
run_program() {
    local before job=${SLURM_JOB_ID:-none}
    # The task of an array that starts last has the array's id for its own, and by that Slurm would requeue all of them.
    [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    warn_of_few_tasks
    choose_launch
    before=$(finished)
    echo "$(date '+%F %T') job $job, start $((${SLURM_RESTART_COUNT:-0} + 1)): ${launch[*]} $*"
    wait_for_program "${launch[@]}" "$@"
    echo "$(date '+%F %T') exit code $status"
    if [ "$status" -eq 75 ] && [ -n "$warned" ] && [ -n "$in_slurm" ]; then
        if [ "$(finished)" = "$before" ]; then
            echo "nothing was finished within this job's time, so it is not queued again: give it more --time or ranks"
        else
            echo "interrupted, what is finished is saved; queueing job $job again"
            scontrol requeue "$job"
        fi
    fi
    exit "$status"
}
