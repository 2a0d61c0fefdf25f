#!/usr/bin/env bash
# Under every policy a llama says the same on 1, 2, 3 and 4 ranks, to 1e-3 (f32).
. "$(dirname "$0")/policies.sh"
ranks_agree "$tiny/llama-tied-f32.gguf" "2 3 4" "${forgetful[@]}"
