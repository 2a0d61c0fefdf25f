#!/usr/bin/env bash
# A document that cannot be done is recorded with its reason, the others are done, and the exit code is 1: of the next
# run, too, which says how it is tried again. What is skipped and what is left out is told.
. "$(dirname "$0")/common.sh"

mkdir "$work/corpus"
cp "$texts/prose.txt" "$texts/mixed.txt" "$work/corpus/"
# Longer than the context, whole and exact asked for, and no --truncate: never cut in silence.
cat "$texts/legal_long.txt" "$texts/legal_long.txt" >"$work/corpus/too_long.txt"
echo "%PDF-1.4" >"$work/corpus/paper.pdf"
echo "none of your business" >"$work/corpus/.hidden"

summarize() {
    exit_code on_ranks 2 summarize "$work/corpus" -m "$tiny/llama-tied-f32.gguf" -o "$work/out" \
        --strategy whole --policy full --max-new 8 --threads 1 "$@" 2>"$work/stderr"
    [ "$code" -eq 1 ] || { cat "$work/stderr"; fail "exit code $code, wanted 1"; }
}

# says WHAT [FILE]: in so many words, on standard error.
says() {
    grep -qF -- "$1" "${2:-$work/stderr}" || { cat "${2:-$work/stderr}"; fail "nothing says: $1"; }
}

summarize --log-level debug
says "hashing $tiny/llama-tied-f32.gguf, "
says "reading 3 files, "
says "; 1 files and folders left out (hidden, "
says "skipped: format not supported (.pdf): turn it into text first, as with pdftotext  corpus/paper.pdf"
says "; answer cut off at 8 tokens (--max-new)"
says "4 documents: 2 ok, 1 skipped, 1 failed"
says "1 documents failed: see the export"
says "left out: corpus/.hidden: hidden" "$work/out/logs/rank-0000.log"

answers "$work/out" >"$work/answers"
[ "$(wc -l <"$work/answers")" -eq 4 ] || fail "$(wc -l <"$work/answers") documents exported, wanted 4"
for text in mixed prose; do
    grep -qP "^corpus/$text.txt\tok\t" "$work/answers" || fail "$text.txt is not ok"
done
grep -P '^corpus/too_long.txt\tfailed\t0\t[^\t]+' "$work/answers" || fail "too_long.txt is not failed with a reason"

summarize
says "4 documents: 2 ok, 1 skipped, 1 failed"
says "1 documents failed before: --retry-failed takes them again"

summarize --retry-failed
says "1 documents failed: see the export"
! grep "failed before" "$work/stderr" || fail "what was tried again did not fail before"

exit_code "$longhaul" plan "$work/corpus" -m "$tiny/llama-tied-f32.gguf" --log-level debug >"$work/plan" 2>"$work/stderr"
[ "$code" -eq 0 ] || { cat "$work/stderr"; fail "plan: exit code $code"; }
says "; 1 files and folders left out (hidden, "
says "left out: corpus/.hidden: hidden"
