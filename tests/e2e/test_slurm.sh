#!/usr/bin/env bash
# A real one-machine Slurm runs `sbatch jobs/summarize_corpus.sh` to its end, and h5py reads the results; it runs
# jobs/needle.sh as an array, and again to gather the parts, and a score as one line. GPUS asks Slurm for GPUs, and the
# program for CUDA.
. "$(dirname "$0")/common.sh"

[ "$(id -u)" -eq 0 ] || skip "starting a Slurm needs root"
PATH=$PATH:/usr/sbin
for program in munged slurmctld slurmd sbatch; do
    command -v "$program" >/dev/null || skip "no $program (jobs/packages.sh test)"
done
/usr/bin/python3 -c 'import h5py' 2>/dev/null || skip "no h5py for /usr/bin/python3 (jobs/packages.sh test)"

# A cluster of this test's own: leftovers of another run neither help nor hurt.
export LONGHAUL_CLUSTER=$work/cluster SLURM_CONF=$work/cluster/slurm.conf
trap '"$source/slurm/dev-cluster.sh" stop; rm -rf "$work"' EXIT
CLUSTER_GPUS=2 "$source/slurm/dev-cluster.sh" start

model=$(model_file SmolLM2-135M-Instruct.Q4_1.gguf) || model=$tiny/llama-tied-f32.gguf
mkdir "$work/corpus"
cp /usr/share/common-licenses/BSD "$texts/prose.txt" "$texts/mixed.txt" "$work/corpus/"
mv "$work/corpus/BSD" "$work/corpus/bsd.txt"

cd "$work"
export CORPUS=corpus MODEL=$model OUT=out/slurm MAX_NEW=32 LONGHAUL=$longhaul
exit_code timeout 600 sbatch --wait --output=job.log "$source/jobs/summarize_corpus.sh"
cat job.log
[ "$code" -eq 0 ] || fail "sbatch: exit code $code"
grep -q 'srun --mpi=pmix --ntasks=2' job.log || fail "the job did not start its ranks with srun"

/usr/bin/python3 - out/slurm <<'EOF'
import sys
import h5py

with h5py.File(sys.argv[1] + "/results.h5", "r") as results:
    documents = results["documents"]
    print("h5py:", len(documents), "documents;", ", ".join(documents[next(iter(documents))]))
    assert len(documents) == 3
EOF
answers out/slurm | tee answers
[ "$(grep -cP '\tok\t' answers)" -eq 3 ] || fail "not 3 documents that are ok"

exit_code timeout 600 sbatch --wait --ntasks=1 --gres=gpu:1 --export=ALL,GPUS=1,OUT=out/gpus --output=gpus.log \
    "$source/jobs/summarize_corpus.sh"
cat gpus.log
grep -q 'srun --mpi=pmix --ntasks=1 --wait=60 --gres=gpu:1 .* --device cuda' gpus.log || fail "GPUS did not ask for a GPU"
[ "$code" -eq 2 ] && grep -q "built without CUDA" gpus.log || fail "exit code $code where there is no CUDA"

export MODEL=$tiny/llama-tied-f32.gguf OUT=out/needle LENGTHS="256 512" TASKS=passkey DEPTHS=0,100 TRIALS=2 THREADS=1
cp -r "$source/jobs" "jobs of mine"
# needle LOG OPTIONS...: submitted by a path with spaces, which the copy that Slurm runs has to find again.
needle() {
    local log=$1
    shift
    exit_code timeout 600 sbatch --wait --cpus-per-task=1 --open-mode=append --output="$log" "$@" "jobs of mine/needle.sh"
    cat "$log"
    [ "$code" -eq 0 ] || fail "jobs/needle.sh $*: exit code $code"
}

needle array.log --array=0-1
needle gathered.log
[ "$(wc -l <out/needle/part-256/trials.jsonl)" -eq 4 ] || fail "the array task of 256 tokens did not do its 4 trials"
[ "$(wc -l <out/needle/trials.jsonl)" -eq 8 ] || fail "the parts were not gathered"
grep -q "8 trials (8 done before)" gathered.log || fail "trials of the parts were done again"

exit_code timeout 600 sbatch --wait --ntasks=2 --output=score.log \
    --wrap "srun --mpi=pmix '$longhaul' score corpus/prose.txt -m '$MODEL' -o out/score --ring 2"
cat score.log
[ "$code" -eq 0 ] && grep -q "2 ranks in 1 ring groups of 2" score.log || fail "a score by one line: exit code $code"
