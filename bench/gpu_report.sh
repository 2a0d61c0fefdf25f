#!/usr/bin/env bash
# gpu_report.sh BUILD OUT [SECONDS]: what a GPU makes of this program, in files of OUT: tests, benches, compute-sanitizer.
# BUILD is a build for GPUs (cmake --preset cuda && cmake --build --preset cuda --target longhaul gpu_tests gpu_benches). Tests
# need CUDA's libraries and cmocka (LD_LIBRARY_PATH, where it is carried along), benches only CUDA's; those of several ranks
# run where there is an mpirun. What matters most comes first, and nothing is begun after SECONDS (3600). What fails is told
# at the end, and nothing stops what follows. Where python3 has torch, PyTorch's kernels are measured beside ours. With MODEL
# (GGUF) and TEXT set, and what the whole program needs there, TEXT is scored as well, all of it under full attention.
set -uo pipefail

[ $# -eq 2 ] || [ $# -eq 3 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
build=$1 out=$2 limit=${3:-3600}
mkdir -p "$out"
failed=()

# run NAME SECONDS COMMAND...: its output in OUT/NAME.txt.
run() {
    local name=$1 begun=$SECONDS code=0
    [ "$begun" -lt "$limit" ] || { echo "$name: no time left"; failed+=("$name"); return; }
    timeout "$2" "${@:3}" >"$out/$name.txt" 2>&1 || code=$?
    echo "$name: exit code $code, $((SECONDS - begun)) s; $(tail -n 1 "$out/$name.txt")"
    [ "$code" -eq 0 ] || failed+=("$name")
}

run card 30 nvidia-smi
run bench_attend 120 "$build/bench/bench_attend_cuda"
if python3 -c 'import torch' 2>/dev/null; then
    run peer_attend 120 python3 "$(dirname "$0")/peer_attend_torch.py"
fi
run bench_attend_one 60 "$build/bench/bench_attend_one_cuda"
run bench_attend_one_short 60 "$build/bench/bench_attend_one_cuda" --keys 32768
for test in attend attend_one rotate ops matvec linear; do
    run "test_$test" 120 "$build/tests/test_${test}_cuda"
done
if command -v mpirun >/dev/null; then # one rank alone goes by NCCL, to itself
    for test in transport ring; do
        for ranks in 1 2; do
            run "mpi_test_${test}_$ranks" 120 "$(dirname "$0")/../tests/mpi/run.sh" "$ranks" \
                "$build/tests/mpi_test_${test}_cuda"
        done
    done
fi
if [ -n "${MODEL:-}" ] && [ -n "${TEXT:-}" ]; then
    run score 600 "$build/longhaul" score "$TEXT" -m "$MODEL" -o "$out/score" --device cuda --policy full \
        --context 2000000 --strategy whole
fi
if command -v compute-sanitizer >/dev/null; then
    for test in attend_one rotate ops matvec linear attend; do
        run "memcheck-$test" 300 compute-sanitizer --error-exitcode 1 "$build/tests/test_${test}_cuda"
    done
    for test in attend_one rotate ops matvec attend; do # the kernels of linear are cuBLAS's, of which it complains
        run "racecheck-$test" 900 compute-sanitizer --tool racecheck --error-exitcode 1 "$build/tests/test_${test}_cuda"
    done
fi
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
