#!/usr/bin/env bash
# score prints perplexity by position, keeps it, and exports it; the file is read back with h5py where that is there.
. "$(dirname "$0")/common.sh"

for _ in 1 2 3; do cat "$texts"/*.txt; done >"$work/long.txt"
"$longhaul" score "$work/long.txt" -m "$tiny/llama-untied-f16.gguf" -o "$work/out" --policy sinks:window=124 \
    >"$work/said" 2>/dev/null || fail "score"
[ "$(grep -c '^  positions' "$work/said")" -gt 3 ] || fail "no buckets in: $(cat "$work/said")"
"$longhaul" export "$work/out" --format md >"$work/out.md"
grep -q '^| 0 - 4999 |' "$work/out.md" || fail "no table in the Markdown"
"$longhaul" export "$work/out" --format jsonl |
    python3 -c 'import json, sys; assert len(json.loads(sys.stdin.readline())["longhaul"]["score"]["buckets"]) > 3' ||
    fail "no buckets in the JSON"
as_documented "$work/out"

# A table that cannot be printed is no success; what it tells is kept all the same.
exit_code "$longhaul" score "$texts/mixed.txt" -m "$tiny/llama-untied-f16.gguf" -o "$work/full" >/dev/full 2>"$work/stderr"
[ "$code" -eq 5 ] || { cat "$work/stderr"; fail "a full disk: exit code $code, wanted 5"; }
grep -q "writing the scores: No space left on device" "$work/stderr" || { cat "$work/stderr"; fail "no reason"; }
"$longhaul" export "$work/full" --format md | grep -q perplexity || fail "the scores are gone"
