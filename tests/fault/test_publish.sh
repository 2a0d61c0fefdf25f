#!/usr/bin/env bash
# A document is published within seconds of its end, also while a longer one goes on for minutes: a kill loses no other.
. "$(dirname "$0")/../e2e/common.sh"

mkdir "$work/corpus"
for _ in $(seq 100); do
    cat "$texts/prose.txt" "$texts/mixed.txt" # so much that full attention takes minutes
done >"$work/corpus/long.txt"
for text in chinese code_c; do
    cp "$texts/$text.txt" "$work/corpus"
done

# published: how many documents the results have.
published() {
    "$longhaul" export "$work/out" --format jsonl 2>/dev/null | wc -l
}

on_ranks 2 score "$work/corpus" -m "$tiny/llama-tied-f32.gguf" -o "$work/out" --ring 1 --context 4000000 --policy full \
    --threads 1 >"$work/stdout" 2>"$work/stderr" &
run=$!
kill_ranks() {
    pkill -KILL -f "^$longhaul score .* -o $work/out" || true
}
trap 'kill_ranks; wait || true; rm -rf "$work"' EXIT
for ((tenths = 0; tenths < 900; tenths++)); do
    [ "$(published)" -lt 2 ] || break
    kill -0 "$run" 2>/dev/null || { cat "$work/stderr"; fail "the run ended by itself"; }
    sleep 0.1
done
[ "$(published)" -eq 2 ] || { cat "$work/stderr"; fail "$(published) documents published, wanted the 2 short ones"; }
kill -0 "$run" || fail "the long document ended too early to tell"
kill_ranks
wait "$run" && fail "a killed run ended well"
[ "$(published)" -eq 2 ] || fail "$(published) documents left after a kill, wanted the 2 that were published"
echo "two documents published after $((tenths / 10)) s, the third under way"
