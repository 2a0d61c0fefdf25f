#!/usr/bin/env bash
# Receipts: a summary under a lossy policy has one; score --against: that of a lossy policy is kept and exported, full
# against full costs exactly nothing, and two ranks measure what one does (f32). The files are read back with h5py where
# that is there.
. "$(dirname "$0")/common.sh"

model=$tiny/llama-untied-f16.gguf
smol=$(model_file SmolLM2-135M-Instruct.Q4_1.gguf) || smol=
head -c 4000 "$texts/prose.txt" >"$work/short.txt"

# compare NAME RANKS MODEL OPTIONS...: a run of two policies, and its receipt as one JSON object.
compare() {
    local name=$1 ranks=$2 of=$3
    shift 3
    on_ranks "$ranks" score "$work/short.txt" -m "$of" -o "$work/$name" --dtype f32 --threads 1 --ring "$ranks" \
        --segment 256 "$@" >"$work/$name.txt" 2>"$work/$name.err" || fail "$name: $(cat "$work/$name.err")"
    grep -q 'ratio' "$work/$name.txt" || fail "$name: no receipt in $(cat "$work/$name.txt")"
    "$longhaul" export "$work/$name" --format jsonl |
        python3 -c 'import json, sys; print(json.dumps(json.loads(sys.stdin.readline())["longhaul"]["receipt"]))' \
            >"$work/$name.json" || fail "$name: no receipt in the export"
    as_documented "$work/$name"
}

# holds NAME EXPRESSION: of the receipt r.
holds() {
    python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); assert eval(sys.argv[2]), (sys.argv[2], r)' \
        "$work/$1.json" "$2" || fail "$1: $2"
}

nothing='r["mean_loss"] == 0 and r["worst_loss"] == 0 and r["mean_kl"] == 0 and r["worst_kl"] == 0 and r["ratio"] == 1'
lossy='r["probes"] == 64 and r["mean_kl"] > 0 and r["worst_kl"] > r["mean_kl"] and r["ratio"] > 1 and
    r["worst_loss"] > 0 and r["predictions"] >= r["tokens"] - 2'

compare same 1 "$model" --policy full --against full
holds same "$nothing"
compare one 1 "$model" --policy sinks:window=124 --against full
holds one "${lossy//$'\n'/ }"
compare two 2 "$model" --policy sinks:window=124 --against full
python3 - "$work/one.json" "$work/two.json" <<'PY' || fail "two ranks measure something else"
import json, sys
one, two = (json.load(open(path)) for path in sys.argv[1:])
for name in ("mean_loss", "worst_loss", "mean_kl", "worst_kl"):
    assert abs(one[name] - two[name]) < 2e-3, (name, one, two)
for name in ("tokens", "predictions", "probes", "policy", "reference"):
    assert one[name] == two[name], (name, one, two)
PY

# A budget in bytes holds: a token takes 512 of them here, and the first tokens, or the window, come on top.
compare budget 1 "$model" --policy sinks --memory-budget 100KiB --against full
holds budget '90000 < r["bytes"] <= 102400 + 4 * 512'
compare hitters 1 "$model" --policy h2o:window=64 --memory-budget 100KiB --against full
holds hitters '90000 < r["bytes"] <= 102400 + 64 * 512'

# summary NAME OPTIONS...: of 12,119 tokens, by a model that was trained to 8,192; its receipt as one JSON object.
summary() {
    local name=$1
    shift
    on_ranks 2 summarize "$texts/legal_long.txt" -m "$tiny/llama-tied-f32.gguf" -o "$work/$name" --dtype f32 \
        --threads 1 --max-new 2 "$@" >/dev/null 2>"$work/$name.err" || fail "$name: $(cat "$work/$name.err")"
    "$longhaul" export "$work/$name" --format jsonl |
        python3 -c 'import json, sys; print(json.dumps(json.loads(sys.stdin.readline())["longhaul"]["receipt"]))' \
            >"$work/$name.json" || fail "$name: no receipt in the export"
    as_documented "$work/$name"
}

# What a long window costs shows where something has left it, and nowhere before.
measured='r["tokens"] == 8192 and r["probes"] == 64 and r["mean_kl"] > 0 and r["mean_loss"] != 0'
summary long --policy sinks:window=8000
holds long "$measured and 8005 < r['worst_kl_position'] < 8192"
holds long 'r["reference"] == "full"'
# Where nothing has left it there is no number.
summary none --policy sinks:window=9000
holds none 'r["tokens"] == 8192 and r["probes"] == 0 and r["mean_loss"] is None and r["ratio"] is None'
grep -q 'ok; .*; receipt: nothing had left the memory after 8192 tokens' "$work/none.err" || fail "$(cat "$work/none.err")"
"$longhaul" export "$work/none" --format md | grep -q '^- receipt: .*: nothing had left the memory after 8192 tokens' ||
    fail "the Markdown tells of a receipt that is none"
# The untouched model has the positions of its file.
file="positions as in the model's file"
summary beyond --strategy whole --positions yarn --factor 1.25
holds beyond "$measured and r['policy'].startswith('retrieval') and r['reference'] == \"full, $file\""
summary stretched --policy sinks:window=9000 --positions yarn --factor 1.25
holds stretched "$measured and r['reference'] == \"full, $file\""

# A summary of pieces has one as well.
for strategy in refine map-reduce; do
    summary "$strategy" --strategy "$strategy" --policy sinks:window=2000
    holds "$strategy" "$measured and r['policy'].startswith('sinks') and r['reference'] == 'full'"
done

if [ -n "$smol" ]; then
    on_ranks 1 summarize "$work/short.txt" -m "$smol" -o "$work/summary" --dtype f32 --policy sinks:window=124 \
        --max-new 8 >/dev/null 2>"$work/summary.err" || fail "summary: $(cat "$work/summary.err")"
    grep -q 'ok; .*; receipt: loss' "$work/summary.err" || fail "no closing receipt in $(cat "$work/summary.err")"
    "$longhaul" export "$work/summary" --format md >"$work/summary.md"
    grep -q '^- receipt: sinks:window=124,sinks=4 against full' "$work/summary.md" || fail "no receipt in the Markdown"
    on_ranks 1 summarize "$work/short.txt" -m "$smol" -o "$work/full" --max-new 8 >/dev/null 2>"$work/full.err"
    ! grep -q 'receipt' "$work/full.err" || fail "a receipt of the untouched model"
    compare smol 1 "$smol" --policy sinks:window=124 --against full
    holds smol "${lossy//$'\n'/ }"
    compare smol-same 1 "$smol" --against full
    holds smol-same "$nothing"
else
    echo "without SmolLM2: it is not there"
fi
