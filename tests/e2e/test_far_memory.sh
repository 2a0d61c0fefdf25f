#!/usr/bin/env bash
# What the far memory is to be worth to Qwen2.5-Coder-0.5B (docs/measurements.md has the whole table): a passage of the
# Bible that comes again 8k tokens later costs at most 0.05 nats a token more than under full attention, the prose
# between at most 0.02; 64k tokens later, twice the trained length, the passage again costs less than 0.3. And a window
# of as many keys as retrieval sees does not remember it. (That its records take less than 0.3 of the bytes is
# unit.test_far's.)
. "$(dirname "$0")/common.sh"

command -v bible >/dev/null || skip "no bible (Debian's bible-kjv)"
model=$(model_file qwen2.5-coder-0.5b-instruct-q4_k_m.gguf) || skip "no Qwen2.5-Coder (jobs/fetch_model.sh qwen2.5-coder)"

bible -f -l 4000 "Gen1:1-Rev22:21" >"$work/bible.txt"
passage=2945 # bytes, about 740 tokens
for thousands in 8 64; do
    { head -c $((thousands * 4096)) "$work/bible.txt"; echo; head -c $passage "$work/bible.txt"; } >"$work/${thousands}k.txt"
done
head -c $passage "$work/bible.txt" >"$work/passage.txt"
again=$(($("$longhaul" tokenize "$work/passage.txt" -m "$model" | wc -l) - 1)) # its first token comes as a surprise

# nats FIRST END: of each token in the lines FIRST .. END - 1 of the scores on standard input.
nats() {
    awk -F , -v first="$1" -v end="$2" 'NR >= first && NR < end {sum -= $4} END {print sum / (end - first)}'
}

# remembers NAME TEXT OPTIONS...: nats a token of the passage again to $passage_again, of what is before it to $prose.
remembers() {
    local name=$1 scores=$work/$1.csv of=$2 lines
    "$source/tests/mpi/run.sh" 2 "$longhaul" score "$work/$of.txt" -m "$model" -o "$work/$name" --strategy whole --ring 2 "${@:3}" \
        >/dev/null 2>"$work/$name.err" || fail "$name: $(tail -n 3 "$work/$name.err")"
    "$longhaul" export "$work/$name" --format csv | tail -n +2 >"$scores"
    lines=$(wc -l <"$scores")
    passage_again=$(nats $((lines + 1 - again)) $((lines + 1)) <"$scores")
    prose=$(nats $((again + 2)) $((lines - again)) <"$scores")
    echo "$name: $lines tokens, $again again: $passage_again nats a token, prose $prose"
}

remembers full 8k --policy full
full=$passage_again full_prose=$prose
remembers far-8k 8k --policy retrieval
holds "$passage_again <= $full + 0.05"
holds "$prose <= $full_prose + 0.02"
remembers window 8k --policy sinks:window=1404
holds "$passage_again > $full + 1"
remembers far-64k 64k --policy retrieval
holds "$passage_again < 0.3"
