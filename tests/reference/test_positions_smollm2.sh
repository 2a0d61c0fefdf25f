#!/usr/bin/env bash
# SmolLM2-135M reads 12,521 tokens, half as many again as it was trained to, by the methods that transformers has for
# it: log-probabilities within 5e-3 of transformers fp32. One segment, as a dynamic method follows its end. The end of
# the text repeats its beginning, so that what is far away counts.
. "$(dirname "$0")/../e2e/common.sh"

model=$(model_file SmolLM2-135M-Instruct.Q4_1.gguf) || skip "no models/SmolLM2-135M-Instruct.Q4_1.gguf (jobs/fetch_model.sh smollm2)"
cat "$source/LICENSE" "$texts"/{chinese,code_c,legal_long,mixed,prose}.txt "$source/LICENSE" "$texts/prose.txt" \
    >"$work/long.txt"
methods=(yarn dynamic)
[ -z "${LONGHAUL_TEST_ALL:-}" ] || methods+=(pi) # a minute more
for method in "${methods[@]}"; do
    on_ranks 1 score "$work/long.txt" -m "$model" -o "$work/$method" --dtype f32 --segment 16384 \
        --positions "$method" --factor 2 >/dev/null
    "$longhaul" export "$work/$method" --format csv >"$work/$method.csv"
    python3 "$source/tests/reference/compare_positions.py" "$source/tests/data/positions/$method.json" \
        "$work/long.txt" "$work/$method.csv" --max-diff 5e-3
done
