#!/usr/bin/env bash
#SBATCH --job-name=longhaul
#SBATCH --ntasks=2
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=longhaul-%j.log
#
# summarize_corpus.sh [MORE OPTIONS]: summarise a corpus, as a Slurm job or here and now.
#
#   CORPUS=books MODEL=models/x.gguf OUT=out/books sbatch --ntasks=8 --cpus-per-task=16 jobs/summarize_corpus.sh
#   CORPUS=books MODEL=models/x.gguf OUT=out/books NTASKS=2 jobs/summarize_corpus.sh
#
# Submit the same line again and it goes on with what is left. Two minutes before the time limit the program
# saves what it has, and the job queues itself again. What is not set is left to the program:
#   CORPUS    file or folder (required)        MODEL    weights, GGUF (required)
#   OUT       folder of the results (out/longhaul)
#   NTASKS    ranks (the job's tasks, or 2)    THREADS  per rank (the job's --cpus-per-task)
#   RING SEGMENT CHUNK OVERLAP CONTEXT DTYPE STRATEGY MAX_NEW PROMPT   the options of these names
#   EXTRA     more options, cut at spaces; arguments of this script are passed on as they are
#   LONGHAUL  the program (build/longhaul here, or the one in PATH)
# Relative paths start from the folder the job was submitted from.
set -euo pipefail

fail() {
    echo "summarize_corpus: $*" >&2
    exit 2
}

home=$(cd "$(dirname "$0")/.." && pwd)
cd "${SLURM_SUBMIT_DIR:-$PWD}"
[ -n "${CORPUS:-}" ] || fail "set CORPUS to the file or folder to summarise"
[ -n "${MODEL:-}" ] || fail "set MODEL to the weights (a GGUF file; jobs/fetch_model.sh fetches a small one)"
OUT=${OUT:-out/longhaul}
in_slurm=${SLURM_JOB_ID:+yes}
NTASKS=${NTASKS:-${SLURM_NTASKS:-2}}
THREADS=${THREADS:-${SLURM_CPUS_PER_TASK:-}}

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

program=$(find_program)
command=("$program" summarize "$CORPUS" -m "$MODEL" -o "$OUT")
[ -z "$THREADS" ] || command+=(--threads "$THREADS")
for name in RING SEGMENT CHUNK OVERLAP CONTEXT DTYPE STRATEGY MAX_NEW PROMPT; do
    option=${name,,}
    [ -z "${!name:-}" ] || command+=("--${option//_/-}" "${!name}")
done
read -r -a extra <<<"${EXTRA:-}"
command+=("${extra[@]}" "$@")

# srun starts the ranks where it can speak PMIx with Open MPI; a wrong PMI would start NTASKS programs of one
# rank each, which the program itself refuses. Slurm since 22.05 does not hand --cpus-per-task on to srun.
# --wait, not --kill-on-bad-exit: ranks that end together with code 75 must not be shot while they do.
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

echo "$(date '+%F %T') job ${SLURM_JOB_ID:-none}, start $((${SLURM_RESTART_COUNT:-0} + 1)): ${launch[*]} ${command[*]}"
"${launch[@]}" "${command[@]}" &
child=$!

# USR1 is Slurm's warning before the time limit, TERM an order to stop; to the program both mean: save and end.
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
