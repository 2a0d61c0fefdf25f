#!/usr/bin/env bash
# gpu_report.sh BUILD OUT: what a GPU makes of this program, in files of OUT: tests, compute-sanitizer, benches.
# BUILD is a build for GPUs (cmake --preset cuda && cmake --build --preset cuda --target gpu_tests gpu_benches). Tests
# and benches need CUDA's libraries and cmocka, no MPI: they can be carried to where the GPU is. What fails is told at the
# end, and nothing stops what follows. Where python3 has torch, PyTorch's kernels are measured beside ours.
set -uo pipefail

[ $# -eq 2 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
build=$1 out=$2
mkdir -p "$out"
failed=()

# run NAME SECONDS COMMAND...: its output in OUT/NAME.txt.
run() {
    local name=$1 begun=$SECONDS code=0
    timeout "$2" "${@:3}" >"$out/$name.txt" 2>&1 || code=$?
    echo "$name: exit code $code, $((SECONDS - begun)) s; $(tail -n 1 "$out/$name.txt")"
    [ "$code" -eq 0 ] || failed+=("$name")
}

run card 30 nvidia-smi
for test in ops rotate linear matvec attend attend_one; do
    run "test_$test" 120 "$build/tests/test_${test}_cuda"
done
run bench_attend 120 "$build/bench/bench_attend_cuda"
run bench_attend_one 60 "$build/bench/bench_attend_one_cuda"
if python3 -c 'import torch' 2>/dev/null; then
    run peer_attend 120 python3 "$(dirname "$0")/peer_attend_torch.py"
fi
if command -v compute-sanitizer >/dev/null; then
    for test in ops rotate matvec attend attend_one; do
        for tool in memcheck racecheck; do
            run "$tool-$test" 180 compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/tests/test_${test}_cuda"
        done
    done
fi
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
