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
# Submit the same line again and it goes on with what is left. Two minutes before the time limit the program saves
# the documents that are finished, and the job queues itself again, unless none was: a document that is only begun
# starts over, so a job's time has to be enough for the longest. What is not set is left to the program:
#   CORPUS    file or folder (required)        MODEL    weights, GGUF (required)
#   OUT       folder of the results (out/longhaul)
#   NTASKS    ranks (the job's tasks, or 2)    THREADS  per rank (the job's --cpus-per-task)
#   GPUS      of a node: the ranks compute on them, or fail (the job needs --gpus-per-node, -task or --gres)
#   RING SEGMENT CHUNK OVERLAP CONTEXT DTYPE STRATEGY MAX_NEW PROMPT POLICY LAYERS MEMORY_BUDGET POSITIONS FACTOR
#             the options of these names
#   EXTRA     more options, cut at spaces; arguments of this script are passed on as they are
#   LONGHAUL  the program (build/longhaul here, or the one in PATH)
# Relative paths start from the folder the job was submitted from.
set -euo pipefail

name=summarize_corpus
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
[ -n "${CORPUS:-}" ] || fail "set CORPUS to the file or folder to summarise"
[ -n "${MODEL:-}" ] || fail "set MODEL to the weights (a GGUF file; jobs/fetch_model.sh fetches a small one)"
OUT=${OUT:-out/longhaul}
NTASKS=${NTASKS:-${SLURM_NTASKS:-2}}
THREADS=${THREADS:-${SLURM_CPUS_PER_TASK:-}}

program=$(find_program)
command=("$program" summarize "$CORPUS" -m "$MODEL" -o "$OUT")
[ -z "$THREADS" ] || command+=(--threads "$THREADS")
options_of RING SEGMENT CHUNK OVERLAP CONTEXT DTYPE STRATEGY MAX_NEW PROMPT POLICY LAYERS MEMORY_BUDGET POSITIONS FACTOR
device_option
read -r -a extra <<<"${EXTRA:-}"
command+=("${extra[@]}" "$@")
run_program "${command[@]}"
