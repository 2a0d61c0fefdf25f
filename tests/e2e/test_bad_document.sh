#!/usr/bin/env bash
# A document that cannot be done is recorded with its reason, the others are done, and the exit code is 1.
. "$(dirname "$0")/common.sh"

mkdir "$work/corpus"
cp "$texts/prose.txt" "$texts/mixed.txt" "$work/corpus/"
# Longer than the context, whole and exact asked for, and no --truncate: never cut in silence.
cat "$texts/legal_long.txt" "$texts/legal_long.txt" >"$work/corpus/too_long.txt"

exit_code on_ranks 2 summarize "$work/corpus" -m "$tiny/llama-tied-f32.gguf" -o "$work/out" \
    --strategy whole --policy full --max-new 8 --threads 1 2>"$work/stderr"
[ "$code" -eq 1 ] || { cat "$work/stderr"; fail "exit code $code, wanted 1"; }

answers "$work/out" >"$work/answers"
[ "$(wc -l <"$work/answers")" -eq 3 ] || fail "$(wc -l <"$work/answers") documents exported, wanted 3"
for text in mixed prose; do
    grep -qP "^corpus/$text.txt\tok\t" "$work/answers" || fail "$text.txt is not ok"
done
grep -P '^corpus/too_long.txt\tfailed\t0\t[^\t]+' "$work/answers" || fail "too_long.txt is not failed with a reason"
