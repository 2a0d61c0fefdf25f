#!/usr/bin/env bash
# positions.sh MODEL.gguf TEXT OUT CONTEXT FACTOR[,FACTOR...] METHOD...: how far position methods carry a model.
# For each factor the first CONTEXT x FACTOR tokens of TEXT are scored under full attention with each METHOD (none, pi,
# ntk, dynamic, yarn, ...), and beside them under what the model can do untouched (chunked: pieces within its context)
# and under the far memory (retrieval). OUT/FACTORx.tsv gets perplexity by position, a column a method, and
# OUT/FACTORx.svg the same as a plot (gnuplot). What is there already is not scored again.
# LONGHAUL: the program (default build/longhaul); RUN: what starts it, as "mpirun -n 2" (default nothing).
set -euo pipefail

[ $# -ge 6 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
model=$1 text=$2 out=$3 context=$4 factors=$5
shift 5
longhaul=${LONGHAUL:-$(dirname "$0")/../build/longhaul}
mkdir -p "$out"

# count FILE: its tokens.
count() {
    "$longhaul" tokenize "$1" -m "$model" | wc -l
}

# cut_text TOKENS FILE: the beginning of the text that has so many tokens, or a few less. A text has not as many tokens a
# byte everywhere.
cut_text() {
    local bytes tokens
    bytes=$(wc -c <"$text")
    cp "$text" "$2"
    while tokens=$(count "$2") && [ "$tokens" -gt "$1" ]; do
        bytes=$((bytes * $1 / tokens - 1))
        head -c "$bytes" "$text" >"$2"
    done
}

# options METHOD FACTOR: how `score` reads on with it.
options() {
    case $1 in
        chunked) ;;
        retrieval) echo --strategy whole --policy retrieval ;;
        *) echo --strategy whole --policy full --positions "$1" --context $((context * $2)) ;;
    esac
}

# score METHOD FACTOR: the perplexities by position, to OUT/FACTORx-METHOD.tsv.
score() {
    local of=$out/$2x-$1
    [ -s "$of.tsv" ] && return
    # shellcheck disable=SC2046 # options are words
    ${RUN:-} "$longhaul" score "$out/$2x.txt" -m "$model" -o "$of" $(options "$1" "$2") >"$of.txt"
    {
        printf 'first\tlast\t%s\n' "$1"
        sed -n 's/^ *positions *\([0-9]*\) - *\([0-9]*\): perplexity \(.*\)$/\1\t\2\t\3/p' "$of.txt"
    } >"$of.tsv"
    echo "factor $2, $1: $(sed -n 's/.*perplexity \([0-9.]*\) over.*/\1/p' "$of.txt")"
}

# plot FACTOR METHOD...: the columns of OUT/FACTORx.tsv.
plot() {
    local factor=$1 column=3 lines=''
    shift
    for method; do
        lines+="${lines:+, }'$out/${factor}x.tsv' using ((\$1+\$2)/2):$column with linespoints title '$method'"
        column=$((column + 1))
    done
    gnuplot <<EOF
set datafile columnheaders
set terminal svg size 760,420 background 'white'
set output '$out/${factor}x.svg'
set xlabel 'position, tokens'
set ylabel 'perplexity'
set logscale y
set key outside
set arrow from $context,graph 0 to $context,graph 1 nohead dashtype 2
plot $lines
EOF
}

# table FACTOR METHOD...: OUT/FACTORx.tsv.
table() {
    local factor=$1 method of
    shift
    of=$out/${factor}x.tsv
    cut -f 1,2 "$out/${factor}x-$1.tsv" >"$of"
    for method; do
        paste "$of" <(cut -f 3 "$out/${factor}x-$method.tsv") >"$of.new"
        mv "$of.new" "$of"
    done
}

for factor in ${factors//,/ }; do
    cut_text $((context * factor - 64)) "$out/${factor}x.txt" # what is put in front has room
    for method in chunked retrieval "$@"; do
        score "$method" "$factor"
    done
    table "$factor" chunked retrieval "$@"
    plot "$factor" chunked retrieval "$@"
done
