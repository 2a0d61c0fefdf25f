#!/usr/bin/env bash
# jobs/needle.sh takes over what array tasks have done, also where one of them was killed before its first trial; says
# what is there and what not; and leaves a folder alone that another run has.
. "$(dirname "$0")/common.sh"

cd "$work"
export MODEL=$tiny/llama-tied-f32.gguf OUT=out LENGTHS="256 512 600" TASKS=passkey DEPTHS=0,100 TRIALS=2 THREADS=1
export LONGHAUL=$longhaul DTYPE=f32
unset SLURM_JOB_ID SLURM_ARRAY_TASK_ID

# needle LOG: all of it; the array task i with SLURM_ARRAY_TASK_ID=i.
needle() {
    timeout 600 "$source/jobs/needle.sh" >"$1" 2>&1
}

# says LOG WORDS: they are in it.
says() {
    grep -q -- "$2" "$1" || { cat "$1"; fail "$1 says nothing of \"$2\""; }
}

SLURM_ARRAY_TASK_ID=0 needle array.log || { cat array.log; fail "the array task: exit code $?"; }
[ "$(wc -l <out/part-256/trials.jsonl)" -eq 4 ] || fail "the array task did not do its 4 trials"
mkdir out/part-512
: >out/part-512/trials.jsonl                                         # killed before its first trial
head -n 1 out/part-256/trials.jsonl | head -c 100 >out/part-512/cut   # killed while it wrote its first trial

# Another run has the folder: nothing is taken from it.
exec 9>out/.lock
flock 9
exit_code needle locked.log 9>&-
[ "$code" -eq 2 ] || { cat locked.log; fail "a folder in use: exit code $code, wanted 2"; }
says locked.log "is in use by another run"
[ ! -e out/trials.jsonl ] || fail "a folder in use was written to"
exec 9>&-

for part in "" "$(cat out/part-512/cut)"; do
    printf '%s' "$part" >out/part-512/trials.jsonl
    rm -f out/trials.jsonl
    needle gathered.log || { cat gathered.log; fail "taking the parts over: exit code $?"; }
    says gathered.log "part-256: 4 trials, 4 of them new; part-512: no trials"
    says gathered.log "no out/part-600"
    says gathered.log "12 trials (4 done before)"
    [ "$(wc -l <out/trials.jsonl)" -eq 12 ] || fail "not 12 trials"
    [ "$(cat out/part-512/trials.jsonl)" = "$part" ] || fail "a part was changed"
done

# The array task comes late: its trials are known already, and once is enough.
SLURM_ARRAY_TASK_ID=1 needle array.log || { cat array.log; fail "the array task: exit code $?"; }
needle again.log || { cat again.log; fail "taking the parts over again: exit code $?"; }
says again.log "part-256: 4 trials, 0 of them new; part-512: 4 trials, 0 of them new"
says again.log "12 trials (12 done before)"
[ "$(wc -l <out/trials.jsonl)" -eq 12 ] || fail "a trial is there twice"
! grep -q "arithmetic" again.log || { cat again.log; fail "one arithmetic is said to be several"; }

# Nodes that choose for themselves may choose differently; tables that mix them say so.
rm out/trials.jsonl
sed -i 's/"dtype":"f32"/"dtype":"bf16"/' out/part-512/trials.jsonl
needle mixed.log || { cat mixed.log; fail "two arithmetics: exit code $?"; }
says mixed.log "two arithmetics, 8 trials in f32 and 4 in bf16"
grep -q "two arithmetics" out/needle.svg || fail "the heat map does not say that it mixes arithmetics"

# Trials of other options are nobody's.
SEED=5 exit_code needle other.log
[ "$code" -eq 2 ] || { cat other.log; fail "parts of other options: exit code $code, wanted 2"; }
echo "taken over, once"
