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
#   job=$(sbatch --parsable --array=0-3 jobs/needle.sh)                        # a length each, in OUT/part-LENGTH
#   sbatch --dependency=afterany:"$job" --output=needle-%j.log jobs/needle.sh  # takes the parts over, does the rest
#   NTASKS=2 jobs/needle.sh                                                    # all of it here and now
#
# Submit the same line again and it goes on with what is left. Two minutes before the time limit the program
# ends the trials it has begun, and the job queues itself again, unless it has done none. What is not set is left to
# the program:
#   MODEL     weights, GGUF (required)         HAYSTACK text to hide things in, a file or folder
#   OUT       folder of the results (out/needle)
#   LENGTHS TASKS   lists with spaces between   BY       lengths or tasks: what an array task takes one of (lengths)
#   DEPTHS TRIALS SEED POLICY LAYERS MEMORY_BUDGET POSITIONS FACTOR CONTEXT RING SEGMENT DTYPE
#             the options of these names
#   NTASKS    ranks (the job's tasks, or 1)    THREADS  per rank (the job's --cpus-per-task)
#   GPUS      of a node: the ranks compute on them, or fail (the job needs --gpus-per-node, -task or --gres)
#   LONGHAUL  the program (build/longhaul here, or the one in PATH)
# Relative paths start from the folder the job was submitted from.
set -euo pipefail

name=needle
# Under sbatch this script is a copy in Slurm's spool, and Slurm knows of what: "Command=" is the path and the arguments,
# with spaces between and perhaps within. The path is the shortest beginning that has launch.sh beside it.
jobs=$(dirname "$0")
if [ ! -f "$jobs/launch.sh" ]; then
    submitted=$(scontrol show job "${SLURM_JOB_ID:-}" | sed -n 's/^ *Command=//p' || true)
    submitted=${submitted%%$'\n'*} # of an array Slurm may show all tasks
    script=${submitted%% *}
    while [ ! -f "${script%/*}/launch.sh" ] && [ "$script" != "$submitted" ]; do
        rest=${submitted#"$script "}
        script+=" ${rest%% *}"
    done
    jobs=${script%/*}
fi
if [ ! -f "$jobs/launch.sh" ]; then
    echo "$name: no launch.sh beside $0, nor beside what Slurm knows as the job's command: ${submitted:-none}" >&2
    exit 2
fi
jobs=$(cd "$jobs" && pwd)
. "$jobs/launch.sh"
cd "${SLURM_SUBMIT_DIR:-$PWD}"
[ -n "${MODEL:-}" ] || fail "set MODEL to the weights (a GGUF file; jobs/fetch_model.sh fetches a small one)"
OUT=${OUT:-out/needle}
BY=${BY:-lengths}
NTASKS=${NTASKS:-${SLURM_NTASKS:-1}}
THREADS=${THREADS:-${SLURM_CPUS_PER_TASK:-}}
read -r -a lengths <<<"${LENGTHS:-}"
read -r -a tasks <<<"${TASKS:-}"

# One item of the list that BY names: the array task's.
take_part() {
    local -n list=$BY
    [ "$1" -lt "${#list[@]}" ] || fail "array task $1, but ${BY^^} has ${#list[@]} items, counted from 0"
    list=("${list[$1]}")
    OUT=$OUT/part-${list[0]}
}

# The program takes over what lies in OUT/part-*, and says what; it cannot know of parts that are not there.
say_missing() {
    local -n wanted=$BY
    local item
    [ -n "$(compgen -G "$OUT/part-*")" ] || return 0
    for item in "${wanted[@]}"; do
        [ -d "$OUT/part-$item" ] || echo "needle: no $OUT/part-$item: its array task has not begun"
    done
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
    say_missing
fi

program=$(find_program)
command=("$program" needle -m "$MODEL" -o "$OUT")
[ -z "${HAYSTACK:-}" ] || command+=(--haystack "$HAYSTACK")
[ "${#lengths[@]}" -eq 0 ] || command+=(--lengths "$(joined "${lengths[@]}")")
[ "${#tasks[@]}" -eq 0 ] || command+=(--tasks "$(joined "${tasks[@]}")")
[ -z "$THREADS" ] || command+=(--threads "$THREADS")
options_of DEPTHS TRIALS SEED POLICY LAYERS MEMORY_BUDGET POSITIONS FACTOR CONTEXT RING SEGMENT DTYPE
device_option
command+=("$@")
run_program "${command[@]}"
