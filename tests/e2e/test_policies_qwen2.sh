#!/usr/bin/env bash
# Under every policy a qwen2, whose keys have a bias, says the same on 1 and 3 ranks, to 1e-3 (f32).
. "$(dirname "$0")/policies.sh"
ranks_agree "$tiny/qwen2-f16.gguf" 3 "${forgetful[@]}"
