# logprobs.sh: hold a real model's log-probabilities against transformers fp32; sourced by test_logprobs_*.sh.
# The bars: f32 to 2e-3 with the same best id wherever it leads by 0.1; bf16 to 0.02 in the mean and 0.5% in
# perplexity.
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/common.sh"

# compare_model FILE.gguf REFERENCES
compare_model() {
    local model references=$source/tests/data/logprobs/$2 dtype reference
    model=$(model_file "$1") || skip "no models/$1 (jobs/fetch_model.sh $2)"
    local -A bars=([f32]="--max-diff 2e-3 --top1-margin 0.1" [bf16]="--mean-diff 0.02 --ppl 0.005")
    for dtype in f32 bf16; do
        on_ranks 2 score "$texts"/*.txt -m "$model" -o "$work/$dtype" --dtype "$dtype" --ring 2 --threads 1 >/dev/null
        "$longhaul" export "$work/$dtype" --format csv >"$work/$dtype.csv"
        for reference in "$references"/*.lp; do
            printf '%s ' "$dtype"
            # shellcheck disable=SC2086  # the bars are several words
            python3 "$compare" "$reference" "$work/$dtype.csv" ${bars[$dtype]}
        done
    done
}
