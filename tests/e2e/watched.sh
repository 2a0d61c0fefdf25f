# shellcheck shell=bash
# watched.sh: a command under the eyes of a watchman; sourced after common.sh by the tests of long texts, which set $model.

# MiB that a rank has of its own beside what is planned: MPI, HDF5, oneDNN's code, the vocabulary. Measured with SmolLM2
# under retrieval: 22 at the end of 11,000 tokens, 33 while the scores of 1.2 million were written down.
beside_plan=48

# resident_mib PID: what the largest rank that mpirun PID has started has of its own: the weights are the node's, and
# files are nobody's.
resident_mib() {
    local pid
    for pid in $(pgrep -P "$1"); do
        awk '/^RssAnon:/ {print int($2 / 1024)}' "/proc/$pid/status"
    done 2>/dev/null | sort -n | tail -n 1
}

# on_two COMMAND ARGUMENTS...: the run that is planned and watched.
on_two() {
    exec "$source/tests/mpi/run.sh" 2 "$longhaul" "$1" -m "$model" --strategy whole --ring 2 "${@:2}"
}

# planned_mib COMMAND TEXT OPTIONS...: what rank 0 of that run has of its own by its plan.
planned_mib() {
    (on_two "$1" "$2" -o "$work/none" --dry-run "${@:3}") 2>&1 |
        sed -n 's/^memory:.* \([.0-9]*\) MiB a rank, \([.0-9]*\) MiB of documents.*/\1 \2/p' | awk '{print int($1 + $2)}'
}

# watched NAME COMMAND TEXT OPTIONS...: the command on 2 ranks, with resident memory every second in NAME.rss.
watched() {
    local name=$1 command=$2 of=$3 pid begun=$SECONDS
    shift 3
    (on_two "$command" "$of" -o "$work/$name" "$@") >"$work/$name.txt" 2>"$work/$name.err" &
    pid=$!
    while kill -0 $pid 2>/dev/null; do
        resident_mib $pid >>"$work/$name.rss" || true
        sleep 1
    done
    wait $pid || fail "$name: $(tail -n 3 "$work/$name.err")"
    cat "$work/$name.txt"
    echo "$name: $((SECONDS - begun)) s"
}

# within_plan NAME COMMAND TEXT OPTIONS...: the ranks of what was watched had no more than was planned.
within_plan() {
    local name=$1 planned peak
    shift
    planned=$(planned_mib "$@")
    peak=$(sort -n "$work/$name.rss" | tail -n 1)
    echo "$name: resident $peak MiB at most, $planned MiB planned"
    holds "$peak <= $planned + $beside_plan"
}

# stays_as_large NAME: what was watched grew no more in its second half.
stays_as_large() {
    local half peak
    half=$(head -n $(($(wc -l <"$work/$1.rss") / 2)) "$work/$1.rss" | sort -n | tail -n 1)
    peak=$(sort -n "$work/$1.rss" | tail -n 1)
    echo "$1: resident $half MiB half-way, $peak MiB at most"
    holds "$peak <= 1.05 * $half + 16"
}

# perplexity NAME: of the whole text.
perplexity() {
    awk '/perplexity .* over/ {for (i = 1; i < NF; i++) if ($i == "perplexity") print $(i + 1)}' "$work/$1.txt"
}

# buckets NAME: the perplexity of each stretch of positions, but the last, which may be short.
buckets() {
    awk '/^  positions/ {print $NF}' "$work/$1.txt" | head -n -1
}

# flat_at_end NAME TEXT: the last of the text's tokens are predicted as well behind all of it as when the end is read by
# itself, exactly and within the context; but for the first 1,000 of that end, which have little before them there.
flat_at_end() {
    local name=$1 of=$2 end part n far near
    end=end-of-$(basename "$of" .txt)
    if [ ! -d "$work/$end" ]; then
        tail -c 24000 "$of" | tail -n +2 >"$work/$end.txt"
        (on_two score "$work/$end.txt" -o "$work/$end" --policy full) >"$work/said" 2>&1 ||
            fail "$end: $(tail -n 3 "$work/said")"
    fi
    for part in "$name" "$end"; do
        "$longhaul" export "$work/$part" --format csv >"$work/$part.csv"
    done
    n=$(($(wc -l <"$work/$end.csv") - 1000))
    cmp <(tail -n $n "$work/$name.csv" | cut -d , -f 3) <(tail -n $n "$work/$end.csv" | cut -d , -f 3) ||
        fail "$name: its end has other tokens"
    far=$(tail -n $n "$work/$name.csv" | awk -F , '{sum -= $4} END {print exp(sum / NR)}')
    near=$(tail -n $n "$work/$end.csv" | awk -F , '{sum -= $4} END {print exp(sum / NR)}')
    echo "$name: perplexity of the last $n tokens $far, read by themselves $near"
    holds "$far < 1.1 * $near"
}

# summarised NAME TEXT: on 2 ranks the text becomes one summary of the whole, within its plan and with a receipt.
summarised() {
    watched "$1" summarize "$2"
    within_plan "$1" summarize "$2"
    answers "$work/$1" | tee "$work/$1.answers"
    [ "$(grep -cP '\tok\t' "$work/$1.answers")" -eq 1 ] || fail "$1: not one summary"
    "$longhaul" export "$work/$1" --format md | tee "$work/$1.md"
    grep -q '^- strategy: whole, 1 chunks' "$work/$1.md" || fail "$1: not read whole"
    grep -q '^- receipt: retrieval' "$work/$1.md" || fail "$1: no receipt"
}
