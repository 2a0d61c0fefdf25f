# watched.sh: scoring under the eyes of a watchman; sourced after common.sh by the tests of long texts, which set $model.

# resident_mib: what the largest rank has of its own: the weights are the node's, and files are nobody's.
resident_mib() {
    local pid
    for pid in $(pidof "$longhaul"); do
        awk '/^RssAnon:/ {print int($2 / 1024)}' "/proc/$pid/status"
    done 2>/dev/null | sort -n | tail -n 1
}

# planned_mib TEXT OPTIONS...: what `plan` says that a rank of 2 has of its own.
planned_mib() {
    "$longhaul" plan "$1" -m "$model" -o "$work/none" --strategy whole --ranks 2 --ring 2 "${@:2}" |
        sed -n 's/^memory:.* \([0-9]*\)[.0-9]* MiB a rank.*/\1/p'
}

# score_watched NAME TEXT OPTIONS...: score on 2 ranks, with resident memory every second in NAME.rss.
score_watched() {
    local name=$1 of=$2 pid
    shift 2
    "$source/tests/mpi/run.sh" 2 "$longhaul" score "$of" -m "$model" -o "$work/$name" --strategy whole --ring 2 "$@" \
        >"$work/$name.txt" 2>"$work/$name.err" &
    pid=$!
    while kill -0 $pid 2>/dev/null; do
        resident_mib >>"$work/$name.rss" || true
        sleep 1
    done
    wait $pid || fail "$name: $(tail -n 3 "$work/$name.err")"
    cat "$work/$name.txt"
}

# perplexity NAME: of the whole text.
perplexity() {
    awk '/perplexity .* over/ {for (i = 1; i < NF; i++) if ($i == "perplexity") print $(i + 1)}' "$work/$1.txt"
}

# buckets NAME: the perplexity of each stretch of positions, but the last, which may be short.
buckets() {
    awk '/^  positions/ {print $NF}' "$work/$1.txt" | head -n -1
}

# expect EXPRESSION: of awk, with numbers for its names.
expect() {
    awk "BEGIN {exit !($1)}" || fail "not so: $1"
}
