#!/usr/bin/env bash
# With --log-level debug the log has, for each segment, which way round the ring went and what the cost model predicted
# for either; without it, nothing of the sort.
. "$(dirname "$0")/common.sh"

for level in debug info; do
    on_ranks 2 score "$texts/prose.txt" -m "$tiny/llama-tied-f32.gguf" -o "$work/$level" --ring 2 --threads 1 \
        --segment 256 --log-level "$level" >"$work/$level.txt" 2>&1 || fail "score: $(cat "$work/$level.txt")"
done
tokens=$(sed -n 's/.*over \([0-9]*\) tokens.*/\1/p' "$work/debug.txt")
wanted=$(((tokens + 1 + 255) / 256))
line='debug: ring: \(keys\|queries\) go round for [0-9]* queries and [0-9]* keys; predicted [0-9.]* ms a layer by keys, '
line+='[0-9.]* ms by queries$'
found=$(grep -c "$line" "$work/debug/logs/rank-0000.log" || true)
[ "$found" -eq "$wanted" ] || { cat "$work/debug/logs/rank-0000.log"; fail "$found lines for $wanted segments"; }
! grep -q "go round for" "$work"/info/logs/* || fail "the choices are in a log of level info"
grep "$line" "$work/debug/logs/rank-0000.log" | head -n 2
