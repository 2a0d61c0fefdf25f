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

# Two of five failures are less than half and more than a third, though only one is new.
cp "$work/corpus/too_long.txt" "$work/corpus/too_long_too.txt"
summarize --max-error-rate 0.5
says "5 documents: 2 ok, 1 skipped, 2 failed"
exit_code "$longhaul" summarize "$work/corpus" -m "$tiny/llama-tied-f32.gguf" -o "$work/out" --strategy whole \
    --policy full --max-new 8 --threads 1 --max-error-rate 0.3 2>"$work/stderr"
[ "$code" -eq 3 ] || { cat "$work/stderr"; fail "more failures than allowed: exit code $code, wanted 3"; }
says "2 of 5 documents failed, more than --max-error-rate 0.3 allows"
rm "$work/corpus/too_long_too.txt"

# What cannot be read this time keeps the answer that it has; the run ends with 1 all the same.
answers "$work/out" >"$work/answers"
mv "$work/corpus/prose.txt" "$work/prose.txt"
ln -s nowhere "$work/corpus/prose.txt"
summarize
says "corpus/prose.txt: not read, its earlier answer is kept: "
says "4 documents: 1 ok, 1 skipped, 2 failed"
says "1 documents could not be read: their earlier answers are kept"
answers "$work/out" | cmp - "$work/answers" || fail "the answer of a document that could not be read is gone"
mv "$work/prose.txt" "$work/corpus/prose.txt"
summarize
says "4 documents: 2 ok, 1 skipped, 1 failed"
says " (4 done before), "

# What could never be read is as failed in the next run as in the first.
ln -s nowhere "$work/corpus/none.txt"
summarize
summarize
says "2 documents failed before: --retry-failed takes them again"
! grep "nothing" "$work/stderr" || fail "what failed before ends the run"
rm "$work/corpus/none.txt"

ln -s nowhere "$work/corpus/two"$'\n'"lines.txt"
exit_code "$longhaul" plan "$work/corpus" -m "$tiny/llama-tied-f32.gguf" --log-level debug >"$work/plan" 2>"$work/stderr"
[ "$code" -eq 0 ] || { cat "$work/stderr"; fail "plan: exit code $code"; }
says "; 1 files and folders left out (hidden, "
says "left out: corpus/.hidden: hidden"
grep -q ' failed .*/two%0Alines.txt: .*a symbolic link to nothing$' "$work/plan" ||
    { cat "$work/plan"; fail "a name of two lines breaks the plan's"; }
