#!/usr/bin/env bash
# Under every policy a llama says the same on 1, 2, 3 and 4 ranks, to 1e-3 (f32). Where retrieval stands behind a full
# layer a near tie may fall otherwise (docs/design.md): there it does in the mean.
. "$(dirname "$0")/policies.sh"
ranks_agree "$tiny/llama-tied-f32.gguf" "2 3 4" "${forgetful[@]}"

table="0 full; 1 retrieval:window=60,sinks=4,top=2"
score one 1 "$tiny/llama-tied-f32.gguf" "$table"
for ranks in 2 3 4; do
    score many "$ranks" "$tiny/llama-tied-f32.gguf" "$table"
    printf '%s on 1 and %s ranks: ' "$table" "$ranks"
    python3 "$compare" "$work/one.csv" "$work/many.csv" --mean-diff 1e-3
done
