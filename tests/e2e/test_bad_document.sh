#!/usr/bin/env bash
# A document that cannot be done is recorded with its reason, the others are done, and the exit code is 1.
. "$(dirname "$0")/common.sh"

mkdir "$work/corpus"
cp "$texts/prose.txt" "$texts/mixed.txt" "$work/corpus/"
# Longer than the context, whole asked for, and no --truncate: never cut in silence.
cat "$texts/legal_long.txt" "$texts/legal_long.txt" >"$work/corpus/too_long.txt"

exit_code on_ranks 2 summarize "$work/corpus" -m "$tiny/llama-tied-f32.gguf" -o "$work/out" \
    --strategy whole --max-new 8 --threads 1 2>"$work/stderr"
[ "$code" -eq 1 ] || { cat "$work/stderr"; fail "exit code $code, wanted 1"; }

"$longhaul" export "$work/out" --format jsonl | python3 -c '
import json, os, sys
records = {os.path.basename(r["path"]): r for r in map(json.loads, sys.stdin)}
assert sorted(records) == ["mixed.txt", "prose.txt", "too_long.txt"], sorted(records)
assert records["mixed.txt"]["status"] == records["prose.txt"]["status"] == "ok", records
assert records["too_long.txt"]["status"] == "failed", records["too_long.txt"]
assert records["too_long.txt"]["reason"], records["too_long.txt"]
print("too_long.txt:", records["too_long.txt"]["reason"])'
