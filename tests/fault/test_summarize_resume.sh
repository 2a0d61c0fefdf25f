#!/usr/bin/env bash
# summarize again skips what is done; killed at any time, it completes when run again, with the same text.
. "$(dirname "$0")/../e2e/common.sh"

model=$tiny/llama-tied-f32.gguf
mkdir "$work/corpus"
for copy in 1 2 3 4; do
    for text in prose chinese code_c mixed; do
        { echo "Copy $copy."; cat "$texts/$text.txt"; } >"$work/corpus/$text-$copy.txt"
    done
done

# summarize OUT: the run that all of this test repeats.
summarize() {
    on_ranks 2 summarize "$work/corpus" -m "$model" -o "$1" --max-new 24 --threads 1 2>>"$work/stderr"
}

parts() {
    (cd "$1" && sha256sum parts/*.h5)
}

summarize "$work/once" || { cat "$work/stderr"; fail "the first run: exit code $?"; }
answers "$work/once" >"$work/wanted"
[ "$(wc -l <"$work/wanted")" -eq 16 ] || fail "$(wc -l <"$work/wanted") documents exported, wanted 16"
! grep -vP '\tok\t' "$work/wanted" || fail "documents that are not ok"

parts "$work/once" >"$work/parts"
summarize "$work/once" || fail "the second run: exit code $?"
parts "$work/once" | cmp - "$work/parts" || fail "the second run changed parts"
answers "$work/once" | cmp - "$work/wanted" || fail "the second run changed answers"
echo "second run: nothing done again"

# An output folder inside the corpus is not read as a part of it.
mkdir "$work/around"
cp "$work/corpus/prose-1.txt" "$work/around"
for start in first second; do
    "$longhaul" summarize "$work/around" -m "$model" -o "$work/around/out" --max-new 2 2>"$work/other" ||
        { cat "$work/other"; fail "the $start run with OUT in the corpus"; }
    [ "$(answers "$work/around/out" | cut -f 1)" = around/prose-1.txt ] || fail "the $start run has read its own files"
done

# What is drawn for a document has nothing to do with the others.
for corpus in "$texts/mixed.txt" "$texts/chinese.txt $texts/mixed.txt"; do
    # shellcheck disable=SC2086 # several documents
    "$longhaul" summarize $corpus -m "$model" -o "$work/drawn-${#corpus}" --max-new 8 --temperature 1 2>"$work/other" ||
        { cat "$work/other"; fail "summarize at a temperature"; }
    answers "$work/drawn-${#corpus}" | grep mixed >>"$work/drawn"
done
[ "$(sort -u "$work/drawn" | wc -l)" -eq 1 ] || { cat "$work/drawn"; fail "another document changed what was drawn"; }

# Files that come later are exported in their places.
cp "$work/corpus/prose-2.txt" "$work/around/a.txt"
cp "$work/corpus/prose-3.txt" "$work/around/b.txt"
"$longhaul" summarize "$work/around" -m "$model" -o "$work/around/out" --max-new 2 2>"$work/other" ||
    { cat "$work/other"; fail "two files more"; }
"$longhaul" export "$work/around/out" --format md | grep '^## ' >"$work/order"
cmp "$work/order" - <<<$'## around/a.txt\n## around/b.txt\n## around/prose-1.txt' || { cat "$work/order"; fail "out of order"; }

exit_code on_ranks 2 summarize "$work/corpus" -m "$model" -o "$work/once" --max-new 8 --threads 1 2>"$work/other"
[ "$code" -eq 2 ] || fail "a run of other options in the same folder: exit code $code, wanted 2"
grep -q "max-new 24 there, 8 here" "$work/other" || { cat "$work/other"; fail "it does not say what differs"; }

# One document for two ranks is read by both together, but not where others have been read by one each. Runs that have
# nothing to compute between them change nothing.
head -c 3000 /dev/zero >"$work/zeros.txt"
cp "$work/zeros.txt" "$work/more_zeros.txt"
for given in zeros.txt "corpus/prose-1.txt corpus/prose-2.txt" "corpus/prose-1.txt more_zeros.txt" corpus/prose-3.txt; do
    # shellcheck disable=SC2086 # several documents
    (cd "$work" && on_ranks 2 summarize $given -m "$model" -o ring --max-new 2 --threads 1 2>other) ||
        { cat "$work/other"; fail "$given"; }
done
grep -q "in 2 ring groups of 1" "$work/other" || { cat "$work/other"; fail "another ring for what was left"; }

# Where segments decide, their default length is the same run whether it is said or not; another length is another run.
segments=(score "$texts/chinese.txt" -m "$model" -o "$work/segments" --policy h2o)
for said in "" "--segment 2048"; do
    # shellcheck disable=SC2086 # none, or two words
    "$longhaul" "${segments[@]}" $said >/dev/null 2>"$work/other" || { cat "$work/other"; fail "'$said' is another run"; }
done
exit_code "$longhaul" "${segments[@]}" --segment 1024 >/dev/null 2>"$work/other"
[ "$code" -eq 2 ] || fail "--segment 1024 in the same folder: exit code $code, wanted 2"

# Kill one rank, later each time, until a run gets through.
kills=0
for tenths in 2 3 4 5 6 8 11 15; do
    summarize "$work/killed" >/dev/null &
    run=$!
    sleep "$((tenths / 10)).$((tenths % 10))"
    # The rank's command line is its own: this program, this output folder.
    victim=$(pgrep -f "^$longhaul summarize .* -o $work/killed" | tail -n 1) || true
    [ -z "$victim" ] || { kill -KILL "$victim" 2>/dev/null && kills=$((kills + 1)); } || true
    wait "$run" || true
done
[ "$kills" -gt 0 ] || fail "no run could be killed in time"
summarize "$work/killed" || { cat "$work/stderr"; fail "the run after $kills kills: exit code $?"; }
answers "$work/killed" | cmp - "$work/wanted" || fail "other answers after $kills kills"
echo "killed $kills times: the same answers in the end"
