#!/usr/bin/env bash
# SmolLM2-135M reads 12,521 tokens, half as many again as it was trained to, by the methods that transformers has for
# it: every token's log-probability within 5e-3 of transformers fp32. On two ranks and by segments; a dynamic method
# follows the end of its segment, so it has one. The end of the text repeats its beginning, so that what is far counts.
. "$(dirname "$0")/../e2e/common.sh"

model=$(model_file SmolLM2-135M-Instruct.Q4_1.gguf) || skip "no models/SmolLM2-135M-Instruct.Q4_1.gguf (jobs/fetch_model.sh smollm2)"
cat "$source/LICENSE" "$texts"/{chinese,code_c,legal_long,mixed,prose}.txt "$source/LICENSE" "$texts/prose.txt" \
    >"$work/long.txt"
declare -A segments=([yarn]=2048 [pi]=3000 [dynamic]=16384)
for method in yarn pi dynamic; do
    on_ranks 2 score "$work/long.txt" -m "$model" -o "$work/$method" --dtype f32 --ring 2 --threads 1 \
        --segment "${segments[$method]}" --positions "$method" --factor 2 >/dev/null
    "$longhaul" export "$work/$method" --format csv >"$work/$method.csv"
    python3 "$source/tests/reference/compare_positions.py" "$source/tests/data/positions/$method.ref" \
        "$work/long.txt" "$work/$method.csv" --max-diff 5e-3
done
