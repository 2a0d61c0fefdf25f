#!/usr/bin/env bash
# The whole program on a GPU: every architecture scores as on the CPU, within what bf16 gives; on 1 and 3 ranks, with
# memory on the device and with bounded memory beside it; what it generates begins as on the CPU; where the GPU has not
# the memory segments are halved, weights are streamed, keys and values stay beside it; ranks that share a GPU share its
# memory, and a GPU without the memory for the job is one clear line. Skipped where there is no GPU, or the program was built without CUDA.
. "$(dirname "$0")/common.sh"

head -c 420 "$source/LICENSE" >"$work/short.txt"
exit_code "$longhaul" score "$work/short.txt" -m "$tiny/llama-tied-f32.gguf" -o "$work/none" --device cuda --dry-run \
    >"$work/said" 2>&1
case $code in
0) ;;
2 | 5) skip "$(cat "$work/said")" ;;
*) fail "exit code $code: $(cat "$work/said")" ;;
esac

# alike NAME RANKS MODEL OPTIONS...: the same log-probabilities on the CPU in f32 and on the GPU. The mean may differ by
# $mean: more where each query chooses for itself, and some between blocks that are as good as each other.
alike() {
    local name=$1 ranks=$2 model=$3 device
    local -A dtypes=([cpu]=f32 [cuda]=auto)
    shift 3
    for device in cpu cuda; do
        on_ranks "$ranks" score "$work/short.txt" -m "$tiny/$model.gguf" -o "$work/$name-$device" --device "$device" \
            --dtype "${dtypes[$device]}" --ring "$ranks" --segment 100 "$@" >/dev/null
        "$longhaul" export "$work/$name-$device" --format csv >"$work/$name-$device.csv"
    done
    printf '%s: ' "$name"
    python3 "$compare" "$work/$name-cpu.csv" "$work/$name-cuda.csv" --mean-diff "${mean:-0.02}" --ppl 0.005
}

alike llama 1 llama-tied-f32
alike untied 1 llama-untied-f16
alike qwen2 1 qwen2-f16
alike gemma3 1 gemma3-q8
alike gemma3-windows-on 1 gemma3-q8 --segment 30
alike gemma3-windows-shared 2 gemma3-q8
alike mistral 1 mistral-f16
alike mistral-windows-on 3 mistral-f16 --segment 50
alike ring 3 llama-tied-f32
grep -q "ring of 3 ranks on [1-9][0-9]* GPUs of 1 nodes: \(nccl\|mpi through the host\)$" "$work/ring-cuda/logs/rank-0000.log" ||
    fail "the log says nothing of the ring: $(cat "$work/ring-cuda/logs/rank-0000.log")"
alike ring-and-bounded 2 qwen2-f16 --layers "0-0 full; 1-1 sinks:window=100"
alike windows-and-sinks 2 qwen2-f16 --segment 40 --layers "0-0 window:window=60; 1-1 sinks:window=100"
alike compressive 1 llama-tied-f32 --policy compressive:window=60,slots=20,rate=4,form=mean
alike h2o 2 llama-tied-f32 --policy h2o:window=60,slots=60
alike infllm 1 llama-tied-f32 --policy infllm:window=60,sinks=4,top=1
alike snapkv 1 llama-tied-f32 --policy snapkv:window=64,slots=30
alike used 1 llama-tied-f32 --policy compressive:window=60,slots=60,form=used
alike memory 2 llama-tied-f32 --policy memory:window=60,memory=80
mean=0.03 alike landmark 1 llama-untied-f16 --policy landmark:token=381,block=16,top=3
alike retrieval 2 llama-tied-f32 --policy retrieval:window=128,top=2 --against full
"$longhaul" score "$work/short.txt" -m "$tiny/llama-tied-f32.gguf" -o "$work/none" --device cuda --against retrieval --dry-run |
    grep -q "on GPUs, layers of bounded memory on the host, context" || fail "the plan does not say what is the host's"

grep -q "attention kernel cuda-" "$work/llama-cuda/logs/rank-0000.log" || fail "the log does not name the GPU's kernel"

# Where segments decide what is kept they are as long as on a CPU; elsewhere as long as the text, here.
planned() {
    "$longhaul" plan "$source/LICENSE" -m "$tiny/llama-tied-f32.gguf" --device cuda --strategy whole "${@:2}" >"$work/said"
    grep -q "segments of $1\$" "$work/said" || fail "${*:2}: $(cat "$work/said")"
}
planned 2048 --policy h2o
planned 3000 --policy h2o --segment 3000
planned '\([3-9]\|1.\)...' --policy full

# answers_alike NAME RANKS MODEL OPTIONS...: the same words, token by token.
answers_alike() {
    local device
    for device in cpu cuda; do
        on_ranks "$2" summarize "$work/short.txt" -m "$tiny/$3.gguf" -o "$work/$1-$device" --device "$device" --ring "$2" \
            --max-new 8 "${@:4}" >/dev/null
        answers "$work/$1-$device" >"$work/$1-$device.txt"
    done
    cmp "$work/$1-cpu.txt" "$work/$1-cuda.txt" || fail "$1: the GPU answers otherwise"
}
answers_alike answer 1 qwen2-f16
for device in cpu cuda; do
    "$longhaul" needle -m "$tiny/qwen2-f16.gguf" -o "$work/needle-$device" --tasks passkey --lengths 400 --depths 50 \
        --device "$device" >/dev/null 2>"$work/said" || fail "needle --device $device: $(cat "$work/said")"
    grep -o '"answer":"[^"]*"' "$work/needle-$device/trials.jsonl" >"$work/needle-$device.txt"
done
cmp "$work/needle-cpu.txt" "$work/needle-cuda.txt" || fail "needle: the GPU answers otherwise"
answers_alike answer-shared 2 qwen2-f16
answers_alike answer-windows 1 gemma3-q8 --segment 30
answers_alike answer-windows-shared 2 gemma3-q8
answers_alike answer-bounded 1 llama-tied-f32 --policy sinks:window=100
answers_alike answer-bounded-shared 2 llama-tied-f32 --policy sinks:window=100

# Where the emulation of a GPU stands in for one it can be made small: too small for all matrices at once, which are then
# streamed, then for the keys and values of the past, which stay in the host's memory, and both give the same answers to the
# last bit; then too small for anything.
# gpu_mib ARGUMENTS...: what the emulated GPU needs for that, and how much of it for keys and values.
gpu_mib() {
    "$longhaul" "$@" -o "$work/none" --dry-run 2>&1 |
        sed -n 's/^GPU memory: \([0-9.]*\) MiB a rank.* keys and values \([0-9.]*\),.*simt.*/\1 \2/p'
}
# memory_of MIB LESS: what a GPU has, of which so much less than MIB is ours.
memory_of() {
    awk "BEGIN {print int(($1 - $2) * 1048576 * 16 / 15)}"
}
score_gemma=(score "$work/short.txt" -m "$tiny/gemma3-q8.gguf" --segment 100 --device cuda)
ask_gemma=(summarize "${score_gemma[@]:1}" --max-new 8)
read -r needed _ <<<"$(gpu_mib "${score_gemma[@]}")"
[ -n "$needed" ] || [ "${GPU:-}" != simt ] || fail "the plan says nothing of an emulated GPU's memory"
[ -n "$needed" ] || exit 0

# With a GPU each the ring goes by NCCL: the same bits. Where NCCL cannot make even its first hop, the ring goes through
# the host; where a peer is gone later all ranks end, with a line and the code for it.
ring=(score "$work/short.txt" -m "$tiny/llama-tied-f32.gguf" --device cuda --ring 3 --segment 100)
SIMT_DEVICES=3 on_ranks 3 "${ring[@]}" -o "$work/nccl" >/dev/null 2>"$work/said"
grep -q "^rings of 3 ranks on GPUs, keys travel by nccl$" "$work/said" || fail "not told: $(cat "$work/said")"
grep -q "ring of 3 ranks on 3 GPUs of 1 nodes: nccl$" "$work/nccl/logs/rank-0000.log" || fail "a GPU each, but not by NCCL"
"$longhaul" export "$work/nccl" --format csv | cmp - "$work/ring-cuda.csv" || fail "by NCCL: other answers"
SIMT_DEVICES=3 SIMT_NCCL_ERROR=0 on_ranks 3 "${ring[@]}" -o "$work/unconnected" >/dev/null 2>"$work/said"
grep -q "keys travel by mpi through the host$" "$work/said" || fail "no way without NCCL: $(cat "$work/said")"
"$longhaul" export "$work/unconnected" --format csv | cmp - "$work/ring-cuda.csv" || fail "without NCCL: other answers"
exit_code env SIMT_DEVICES=3 SIMT_NCCL_ERROR=1 "$source/tests/mpi/run.sh" 3 "$longhaul" "${ring[@]}" -o "$work/broken" \
    >/dev/null 2>"$work/said"
[ "$code" -eq 6 ] && grep -q "^longhaul: .*a rank of the ring: remote process exited" "$work/said" ||
    fail "a ring that breaks: code $code, $(cat "$work/said")"

bytes=$(memory_of "$needed" 0.2)

# in_less NAME BYTES WHERE ARGUMENTS...: runs with so little memory, and the plan says what it took.
in_less() {
    SIMT_MEMORY=$2 on_ranks 1 "${@:4}" -o "$work/$1" 2>"$work/said" >/dev/null || fail "$1: $(tail -n 3 "$work/said")"
    grep -q "on GPUs, $3, context" "$work/said" || fail "$1: $(cat "$work/said")"
}
# in_least NAME ARGUMENTS...: the same where neither streamed matrices make room nor keys and values that leave.
in_least() {
    local whole keys streamed
    read -r whole keys <<<"$(gpu_mib "${@:2}")"
    read -r streamed _ <<<"$(SIMT_MEMORY=$(memory_of "$whole" 0.2) gpu_mib "${@:2}")"
    in_less "$1" "$(memory_of "($streamed < $whole - $keys ? $streamed : $whole - $keys)" 0.15)" \
        "weights streamed, keys and values in the host's memory" "${@:2}"
}
in_less streamed "$bytes" "weights streamed" "${score_gemma[@]}"
in_least least "${score_gemma[@]}"
for name in streamed least; do
    "$longhaul" export "$work/$name" --format csv | cmp - "$work/gemma3-cuda.csv" || fail "$name: other answers"
done
on_ranks 1 "${ask_gemma[@]}" -o "$work/asked" >/dev/null
in_least asked-least "${ask_gemma[@]}"
answers "$work/asked" >"$work/asked.txt"
answers "$work/asked-least" | cmp - "$work/asked.txt" || fail "asked with the least memory: another answer"

# Where keys and values take more than the matrices, only they leave.
head -c 9000 "$source/LICENSE" >"$work/long.txt"
long=(score "$work/long.txt" -m "$tiny/llama-tied-f32.gguf" --segment 100 --device cuda --strategy whole)
read -r of_long _ <<<"$(gpu_mib "${long[@]}")"
SIMT_MEMORY=$(memory_of "$of_long" 1) "$longhaul" "${long[@]}" -o "$work/none" --dry-run >"$work/said" 2>&1
grep -q "on GPUs, keys and values in the host's memory, context" "$work/said" || fail "keys alone: $(cat "$work/said")"

# Segments that decide no answer are halved before anything leaves the GPU, but not where the user has said how long they are.
head -c 3600 "$source/LICENSE" >"$work/halved.txt"
halved=(score "$work/halved.txt" -m "$tiny/llama-tied-f32.gguf" --device cuda --policy full)
whole=$("$longhaul" "${halved[@]}" -o "$work/none" --dry-run 2>&1 | sed -n 's/.*on GPUs, context .* segments of //p')
read -r of_whole _ <<<"$(gpu_mib "${halved[@]}")"
SIMT_MEMORY=$(memory_of "$of_whole" 0.2) "$longhaul" "${halved[@]}" -o "$work/none" --dry-run >"$work/said" 2>&1
grep -q "on GPUs, context .* segments of $((whole / 2))$" "$work/said" || fail "$whole not halved: $(cat "$work/said")"
SIMT_MEMORY=$(memory_of "$of_whole" 0.2) "$longhaul" "${halved[@]}" --segment "$whole" -o "$work/none" --dry-run \
    >"$work/said" 2>&1
grep -q "on GPUs, keys and values in the host's memory, context .* segments of $whole$" "$work/said" || fail "$whole asked: $(cat "$work/said")"

# A rank may see one GPU only, which is then the first that it sees. Two ranks that share one have half of its memory
# each, two that have one each have all of it.
cat >"$work/each-its-own" <<EOF
#!/bin/sh
SIMT_PLACE=\$OMPI_COMM_WORLD_LOCAL_RANK exec "$longhaul" "\$@"
EOF
chmod +x "$work/each-its-own"
on_two() {
    exit_code env SIMT_MEMORY=$((bytes + (1 << 20))) "$source/tests/mpi/run.sh" 2 "$1" score "$work/short.txt" \
        --device cuda -m "$tiny/gemma3-q8.gguf" -o "$work/none" --ring 1 --segment 100 --dry-run >"$work/said" 2>&1
}
on_two "$longhaul"
[ "$code" -eq 5 ] && grep -q "a rank has 0.02 GiB" "$work/said" || fail "half a GPU: code $code, $(cat "$work/said")"
on_two "$work/each-its-own"
[ "$code" -eq 0 ] && ! grep -q "streamed" "$work/said" || fail "a GPU each: code $code, $(cat "$work/said")"

# What the plan says is there is what a rank may take: the card's memory but for a sixteenth.
SIMT_MEMORY=$((64 << 20)) "$longhaul" "${score_gemma[@]}" -o "$work/none" --dry-run | grep -q "; 60.0 MiB there: " ||
    fail "the plan counts what a rank cannot have"

# A run on the CPU by want of a GPU says why; one that was asked for does not.
for device in auto cpu; do
    SIMT_DEVICES=0 "$longhaul" score "$work/short.txt" -m "$tiny/llama-tied-f32.gguf" -o "$work/none" --device "$device" \
        --dry-run >"$work/$device" 2>&1
done
grep -q "warn: computing on the CPU: no GPU here: CUDA sees none" "$work/auto" || fail "no GPU: $(cat "$work/auto")"
! grep -q "computing on the CPU" "$work/cpu" || fail "--device cpu: $(cat "$work/cpu")"

# Nor is a GPU taken that only some of the ranks have.
cat >"$work/first-only" <<EOF
#!/bin/sh
SIMT_DEVICES=\$((OMPI_COMM_WORLD_LOCAL_RANK == 0)) exec "$longhaul" "\$@"
EOF
chmod +x "$work/first-only"
exit_code "$source/tests/mpi/run.sh" 2 "$work/first-only" score "$work/short.txt" -m "$tiny/llama-tied-f32.gguf" \
    -o "$work/none" --ring 2 --dry-run >"$work/said" 2>&1
[ "$code" -eq 0 ] && grep -q "warn: computing on the CPU: not every rank has a GPU" "$work/said" ||
    fail "one GPU for two: code $code, $(cat "$work/said")"

# A card without bf16 is none.
exit_code env SIMT_CAPABILITY=75 "$longhaul" score "$work/short.txt" -m "$tiny/llama-tied-f32.gguf" -o "$work/old" \
    --device cuda --dry-run >"$work/said" 2>&1
[ "$code" -eq 5 ] && grep -q "compute capability 7.5" "$work/said" || fail "an old card: code $code, $(cat "$work/said")"

exit_code env SIMT_MEMORY=1000000 "$longhaul" score "$work/short.txt" -m "$tiny/llama-tied-f32.gguf" -o "$work/small" \
    --device cuda 2>"$work/said"
[ "$code" -eq 5 ] || fail "exit code $code with a GPU too small"
grep -q "this needs 0\.0[1-9] GiB on the GPU of each rank; a rank has 0\.00 GiB of simt" "$work/said" ||
    fail "a GPU too small: $(cat "$work/said")"
cat "$work/said"
