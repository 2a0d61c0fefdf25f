#!/usr/bin/env bash
# A job that Slurm warns of its time limit queues itself again, but not where it has finished nothing: it would start
# over for ever. Slurm and the program are stand-ins here: the time limit of a real Slurm is a minute at least.
. "$(dirname "$0")/common.sh"

mkdir "$work/bin"
export PATH=$work/bin:$PATH REQUEUED=$work/requeued LONGHAUL=$work/bin/program READY=$work/ready
cat >"$work/bin/srun" <<'EOF'
#!/bin/sh
[ "$1" != --mpi=list ] || exec echo pmix
shift 3 # --mpi --ntasks --wait
exec "$@"
EOF
cat >"$work/bin/scontrol" <<'EOF'
#!/bin/sh
echo "$@" >>"$REQUEUED"
EOF
# Finishes what FINISHES says, and then waits for the warning.
cat >"$work/bin/program" <<'EOF'
#!/bin/bash
trap 'exit 75' USR1
[ -z "$FINISHES" ] || { mkdir -p "$(dirname "$FINISHES")" && echo done >>"$FINISHES"; }
touch "$READY"
for _ in $(seq 600); do sleep 0.05; done
EOF
chmod +x "$work"/bin/*

# job SCRIPT FINISHES: one start of a job that is warned; its log is in $work/log.
job() {
    local pid
    rm -f "$REQUEUED" "$READY"
    FINISHES=$2 OUT=$work/out CORPUS=corpus MODEL=model SLURM_JOB_ID=7 SLURM_NTASKS=1 NTASKS=1 \
        "$source/jobs/$1" >"$work/log" 2>&1 &
    pid=$!
    while [ ! -e "$READY" ]; do
        kill -0 $pid 2>/dev/null || fail "$1 ended by itself: $(cat "$work/log")"
        sleep 0.05
    done
    kill -USR1 $pid
    exit_code wait $pid
    [ "$code" -eq 75 ] || fail "$1: exit code $code, wanted the program's 75: $(cat "$work/log")"
}

# requeues ID SCRIPT FILE...: it does after each start that finishes one of these, and no more.
requeues() {
    local id=$1 script=$2 file
    shift 2
    for file in "$@"; do
        job "$script" "$work/out/$file"
        grep -qx "requeue $id" "$REQUEUED" || fail "$script was not queued again after $file: $(cat "$work/log")"
    done
    job "$script" ""
    [ ! -e "$REQUEUED" ] || fail "$script was queued again with nothing finished"
    grep -q "nothing was finished .* not queued again" "$work/log" || fail "$script does not say why: $(cat "$work/log")"
}

requeues 7 summarize_corpus.sh parts/part-000001.h5 parts/part-000002.h5
rm -r "$work/out"
requeues 7 needle.sh trials.jsonl trials.jsonl
# Of an array only the task that was warned, also where it has the array's id for its own.
SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=1 LENGTHS="256 512" requeues 7_1 needle.sh part-512/trials.jsonl
