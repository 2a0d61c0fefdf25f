#!/usr/bin/env bash
# What the job scripts start, and what they say of it. Slurm and the program are stand-ins here: no job has to wait, and
# a job of many nodes needs none.
. "$(dirname "$0")/common.sh"

mkdir "$work/bin"
export PATH=$work/bin:$PATH LONGHAUL=$work/bin/program CORPUS=corpus MODEL=model OUT=$work/out
export SLURM_JOB_ID=7 SLURM_NTASKS=2
cat >"$work/bin/srun" <<'END'
#!/bin/sh
[ "$1" != --mpi=list ] || { echo pmix && seq 100000; } # a list that fills a pipe
END
printf '#!/bin/sh\n' >"$work/bin/program"
cat >"$work/bin/scontrol" <<'END'
#!/bin/sh
printf 'JobId=7 JobName=x\n   Command=%s\n   WorkDir=/\n\nJobId=8 JobName=x\n   Command=/other\n' "$COMMAND"
END
chmod +x "$work"/bin/*

# job CODE SCRIPT: one start of a job, which ends with this code; its log is in $work/log.
job() {
    exit_code "$2" >"$work/log" 2>&1
    [ "$code" -eq "$1" ] || fail "$2: exit code $code, wanted $1: $(cat "$work/log")"
}

says() {
    grep -q -- "$1" "$work/log" || fail "not said: $1; but: $(cat "$work/log")"
}

summarize=$source/jobs/summarize_corpus.sh

# --ntasks, which the script sets, makes a maximum of --ntasks-per-node.
SLURM_JOB_NUM_NODES=2 SLURM_NTASKS_PER_NODE=4 job 0 "$summarize"
says "warning: the job has 2 tasks, not 4 on each of 2 nodes; .* --ntasks=8"
SLURM_NTASKS=8 SLURM_JOB_NUM_NODES=2 SLURM_NTASKS_PER_NODE=4 job 0 "$summarize"
says "srun --mpi=pmix --ntasks=8 "
! grep -q warning "$work/log" || fail "warned without need: $(cat "$work/log")"

# LONGHAUL is a path or a name, and where it is neither no other program takes its place.
LONGHAUL=program job 0 "$summarize"
says "$work/bin/program summarize corpus"
for missing in "$work/no program" "$work/bin" model; do
    LONGHAUL=$missing job 2 "$summarize"
    says "LONGHAUL is $missing, which is no program"
done

# The copy of a script in Slurm's spool finds the folder it was submitted from, spaces or none.
folder="$work/a  folder, and/jobs of mine"
mkdir -p "$folder" "$work/spool"
cp "$source/jobs/launch.sh" "$folder"
for script in summarize_corpus.sh needle.sh; do
    cp "$source/jobs/$script" "$work/spool/slurm_script"
    for command in "$source/jobs/$script" "$folder/$script" "$folder/$script --prompt $work/a prompt" "$folder/$script "; do
        COMMAND=$command job 0 "$work/spool/slurm_script"
        says "exit code 0"
    done
    for command in "$work/a  folder, and/$script --top-k 1" "(null)" ""; do
        COMMAND=$command job 2 "$work/spool/slurm_script"
        says "no launch.sh beside $work/spool/slurm_script, nor beside .*: ${command:-none}$"
    done
done
