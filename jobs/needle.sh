#!/usr/bin/env bash
#SBATCH --job-name=needle
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=needle-%A_%a.log
#
# needle.sh [MORE OPTIONS]: needle in a haystack, as a Slurm array with one task a length (or a task of longhaul's),
# as one Slurm job, or here and now.
#
#   export MODEL=models/x.gguf HAYSTACK=books OUT=out/needle LENGTHS="1k 2k 4k 8k" TASKS="niah passkey"
#   job=$(sbatch --parsable --array=0-3 jobs/needle.sh)              # a length each, in OUT/part-LENGTH
#   sbatch --dependency=afterany:"$job" jobs/needle.sh               # gathers the parts, does what is missing
#   NTASKS=2 jobs/needle.sh                                          # all of it here and now
#
# Submit the same line again and it goes on with what is left. Two minutes before the time limit the program
# ends what it has begun, and the job queues itself again. What is not set is left to the program:
#   MODEL     weights, GGUF (required)         HAYSTACK text to hide things in, a file or folder
#   OUT       folder of the results (out/needle)
#   LENGTHS TASKS   lists with spaces between   BY       lengths or tasks: what an array task takes one of (lengths)
#   DEPTHS TRIALS SEED POLICY LAYERS MEMORY_BUDGET POSITIONS FACTOR CONTEXT RING SEGMENT DTYPE
#             the options of these names
#   NTASKS    ranks (the job's tasks, or 1)    THREADS  per rank (the job's --cpus-per-task)
#   LONGHAUL  the program (build/longhaul here, or the one in PATH)
# Relative paths start from the folder the job was submitted from.
set -euo pipefail

fail() {
    echo "needle: $*" >&2
    exit 2
}

home=$(cd "$(dirname "$0")/.." && pwd)
cd "${SLURM_SUBMIT_DIR:-$PWD}"
[ -n "${MODEL:-}" ] || fail "set MODEL to the weights (a GGUF file; jobs/fetch_model.sh fetches a small one)"
OUT=${OUT:-out/needle}
BY=${BY:-lengths}
in_slurm=${SLURM_JOB_ID:+yes}
NTASKS=${NTASKS:-${SLURM_NTASKS:-1}}
THREADS=${THREADS:-${SLURM_CPUS_PER_TASK:-}}
read -r -a lengths <<<"${LENGTHS:-}"
read -r -a tasks <<<"${TASKS:-}"

# Under sbatch this script is a copy in Slurm's spool, so the checkout is looked for where the job came from.
find_program() {
    local program
    for program in "${LONGHAUL:-}" build/longhaul "$home/build/longhaul" "$(command -v longhaul || true)"; do
        if [ -n "$program" ] && [ -x "$program" ]; then
            echo "$program"
            return
        fi
    done
    fail "no longhaul program in build/ or in PATH; build it (jobs/quickstart.sh) or set LONGHAUL"
}

# One item of the list that BY names: the array task's.
take_part() {
    local -n list=$BY
    [ "$1" -lt "${#list[@]}" ] || fail "array task $1, but ${BY^^} has ${#list[@]} items, counted from 0"
    list=("${list[$1]}")
    OUT=$OUT/part-${list[0]}
}

# The whole lines of all parts and of what is there already, each once.
gather_parts() {
    local parts=("$OUT"/part-*/trials.jsonl)
    [ -e "${parts[0]}" ] || return 0
    [ ! -e "$OUT/trials.jsonl" ] || parts+=("$OUT/trials.jsonl")
    grep -h '"}$' "${parts[@]}" | awk '!seen[$0]++' >"$OUT/trials.jsonl.tmp"
    mv "$OUT/trials.jsonl.tmp" "$OUT/trials.jsonl"
}

joined() {
    local IFS=,
    echo "$*"
}

case $BY in
lengths | tasks) ;;
*) fail "BY is lengths or tasks, not $BY" ;;
esac
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    take_part "$SLURM_ARRAY_TASK_ID"
else
    gather_parts
fi

program=$(find_program)
command=("$program" needle -m "$MODEL" -o "$OUT")
[ -z "${HAYSTACK:-}" ] || command+=(--haystack "$HAYSTACK")
[ "${#lengths[@]}" -eq 0 ] || command+=(--lengths "$(joined "${lengths[@]}")")
[ "${#tasks[@]}" -eq 0 ] || command+=(--tasks "$(joined "${tasks[@]}")")
[ -z "$THREADS" ] || command+=(--threads "$THREADS")
for name in DEPTHS TRIALS SEED POLICY LAYERS MEMORY_BUDGET POSITIONS FACTOR CONTEXT RING SEGMENT DTYPE; do
    option=${name,,}
    [ -z "${!name:-}" ] || command+=("--${option//_/-}" "${!name}")
done
command+=("$@")

# srun starts the ranks where it can speak PMIx with Open MPI; see jobs/summarize_corpus.sh.
if [ -n "$in_slurm" ] && [ "$NTASKS" -gt "${SLURM_NTASKS:-1}" ]; then
    fail "NTASKS is $NTASKS, but the job has ${SLURM_NTASKS:-1} tasks; submit it with --ntasks=$NTASKS"
fi
if [ -n "$in_slurm" ] && srun --mpi=list 2>&1 | grep -qw pmix; then
    export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
    launch=(srun --mpi=pmix --ntasks="$NTASKS" --wait=60)
else
    launch=(mpirun -n "$NTASKS" --bind-to none)
    [ -n "$in_slurm" ] || launch+=(--oversubscribe)
    [ "$(id -u)" -ne 0 ] || launch+=(--allow-run-as-root)
fi

echo "$(date '+%F %T') job ${SLURM_JOB_ID:-none}: ${launch[*]} ${command[*]}"
"${launch[@]}" "${command[@]}" &
child=$!

# wait returns early when a signal comes, and then has to be called again for the program's own exit code.
warned=
interrupted=
trap 'warned=yes interrupted=yes; kill -USR1 "$child" 2>/dev/null || true' USR1
trap 'interrupted=yes; kill -USR1 "$child" 2>/dev/null || true' TERM INT
status=0
while :; do
    interrupted=
    result=0
    wait "$child" || result=$?
    [ "$result" -eq 127 ] || status=$result
    [ -n "$interrupted" ] || break
done
echo "$(date '+%F %T') exit code $status"

# Only after the warning: a job that someone cancelled must not come back by itself.
if [ "$status" -eq 75 ] && [ -n "$warned" ] && [ -n "$in_slurm" ]; then
    echo "interrupted with everything saved; queueing job $SLURM_JOB_ID again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
