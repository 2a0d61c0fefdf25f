# logprobs.sh: hold a real model's log-probabilities against transformers fp32; sourced by test_logprobs_*.sh.
# The bars: f32 to 2e-3 with the same best id wherever it leads by 0.1; bf16 to 0.025 in the mean of a text and 0.5% in
# perplexity: where sums are rounded to bf16 depends on their order, and with it a text's mean on the CPU (0.0195 and
# 0.0207 for the same text by two of oneDNN's kernels). A CPU without AVX-512 has no bf16 product, and the program has to
# say so.
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/common.sh"

# refuses_bf16 MODEL
refuses_bf16() {
    local said status=0
    said=$("$longhaul" score "$texts/prose.txt" -m "$1" -o "$work/bf16" --dtype bf16 2>&1) || status=$?
    [ "$status" -eq 2 ] && grep -q "this CPU has no matrix product of type bf16" <<<"$said"
}

# compare_model FILE.gguf REFERENCES
compare_model() {
    local model references=$source/tests/data/logprobs/$2 dtype reference
    model=$(model_file "$1") || skip "no models/$1 (jobs/fetch_model.sh $2)"
    local -A bars=([f32]="--max-diff 2e-3 --top1-margin 0.1" [bf16]="--mean-diff 0.025 --ppl 0.005")
    local dtypes=(f32 bf16)
    if ! grep -qw avx512bw /proc/cpuinfo; then
        dtypes=(f32)
        refuses_bf16 "$model"
    fi
    for dtype in "${dtypes[@]}"; do
        on_ranks 2 score "$texts"/*.txt -m "$model" -o "$work/$dtype" --dtype "$dtype" --ring 2 --threads 1 >/dev/null
        "$longhaul" export "$work/$dtype" --format csv >"$work/$dtype.csv"
        for reference in "$references"/*.lp; do
            printf '%s ' "$dtype"
            # shellcheck disable=SC2086  # the bars are several words
            python3 "$compare" "$reference" "$work/$dtype.csv" ${bars[$dtype]}
        done
    done
}
