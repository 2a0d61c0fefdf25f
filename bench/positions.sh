#!/usr/bin/env bash
# positions.sh MODEL.gguf TEXT OUT CONTEXT FACTOR[,FACTOR...] [METHOD...]: how far positions and policies carry a model.
# For each factor about the first CONTEXT x FACTOR tokens of TEXT, with eight pass keys hidden in them from the beginning
# to 7/8 and asked for at the end, are scored under each METHOD: positions (none, pi, ntk, dynamic, yarn, ...) with full
# attention, or a policy (NAME[:KEY=N,...]); and beside them under what the model can do untouched (chunked: pieces
# within its context) and under the far memory (retrieval). The questions count in the last stretch's perplexity and in
# that of all. OUT gets
#   FACTORx.tsv       perplexity by position, a column a method
#   FACTORx.svg       the same as a plot (gnuplot)
#   FACTORx-keys.tsv  for each method its perplexity, the keys found (each digit was the model's first choice), a
#                     1 or 0 for each key from the farthest to the nearest, and nats a key (chance: 11.5)
# What is there already is not scored again. The model's tokenizer must make a token of each digit.
# LONGHAUL: the program (default build/longhaul); RUN: what starts it, as "mpirun -n 2" (default nothing).
set -euo pipefail
export LC_ALL=C

[ $# -ge 5 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
model=$1 text=$2 out=$3 context=$4 factors=$5
shift 5
longhaul=${LONGHAUL:-$(dirname "$0")/../build/longhaul}
mkdir -p "$out"

printf 0123456789 >"$out/digits"
digits=$("$longhaul" tokenize "$out/digits" -m "$model" | tail -n 10 | paste -s -d ' ')
[ "$(wc -w <<<"$digits")" = 10 ] || { echo "$model: its tokenizer does not make a token of each digit" >&2; exit 1; }

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

# hide_keys FILE: the file with the keys between its lines, and the questions behind them.
hide_keys() {
    awk -v size="$(wc -c <"$1")" '
        BEGIN {
            keys = split("48213 90567 31874 75029 26390 84751 10648 59132", key)
            split("tower garden river mountain bridge harbour forest castle", place)
        }
        hidden < keys && at >= size * hidden / keys {
            hidden++
            print "The pass key of the " place[hidden] " is " key[hidden] ". Remember it."
        }
        { print; at += length($0) + 1 }
        END {
            if (hidden < keys) {
                print "positions.sh: the text has too few lines to hide the keys between" >"/dev/stderr"
                exit 1
            }
            for (i = 1; i <= keys; i++)
                printf "What is the pass key of the %s? The pass key of the %s is %s.\n", place[i], place[i], key[i]
        }' "$1"
}

# options METHOD FACTOR: how `score` reads on with it.
options() {
    case $1 in
        chunked) ;;
        none | pi | ntk | dynamic | yarn | llama3 | longrope)
            echo --strategy whole --policy full --positions "$1" --context $((context * $2)) ;;
        *) echo --strategy whole --policy "$1" ;;
    esac
}

# find_keys: of the lines of `export`, keys found, which, and nats a key. The answers' digits are the last 8 x 5.
find_keys() {
    awk -F , -v digits="$digits" '
        BEGIN { split(digits, id, " "); for (i in id) is_digit[id[i]] }
        $3 in is_digit { right[n] = $5 == $3; logprob[n++] = $4 }
        END {
            for (i = n - 40; i < n; i += 5) {
                all = 1
                for (j = i; j < i + 5; j++) { all *= right[j]; nats -= logprob[j] / 8 }
                found += all
                which = which all
            }
            printf "%d\t%s\t%.2f\n", found, which, nats
        }'
}

# score METHOD FACTOR: the perplexities by position, to OUT/FACTORx-METHOD.tsv, and the keys, to OUT/FACTORx-METHOD.keys.
score() {
    local of=$out/$2x-$1 all keys
    [ -s "$of.keys" ] && return
    # shellcheck disable=SC2046 # options are words
    ${RUN:-} "$longhaul" score "$out/$2x.txt" -m "$model" -o "$of" $(options "$1" "$2") >"$of.txt"
    {
        printf 'first\tlast\t%s\n' "$1"
        sed -n 's/^ *positions *\([0-9]*\) - *\([0-9]*\): perplexity \(.*\)$/\1\t\2\t\3/p' "$of.txt"
    } >"$of.tsv"
    all=$(sed -n 's/.*perplexity \([0-9.]*\) over.*/\1/p' "$of.txt")
    keys=$("$longhaul" export "$of" | find_keys)
    printf '%s\t%s\t%s\n' "$1" "$all" "$keys" >"$of.keys"
    sed "s/^/factor $2: /" "$of.keys"
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

# table FACTOR METHOD...: OUT/FACTORx.tsv and OUT/FACTORx-keys.tsv.
table() {
    local factor=$1 method of
    shift
    of=$out/${factor}x
    cut -f 1,2 "$of-$1.tsv" >"$of.tsv"
    printf 'method\tperplexity\tfound\twhich\tnats\n' >"$of-keys.tsv"
    for method; do
        paste "$of.tsv" <(cut -f 3 "$of-$method.tsv") >"$of.new"
        mv "$of.new" "$of.tsv"
        cat "$of-$method.keys" >>"$of-keys.tsv"
    done
}

for factor in ${factors//,/ }; do
    cut_text $((context * factor - 640)) "$out/${factor}x.plain" # the keys and what is put in front have room
    hide_keys "$out/${factor}x.plain" >"$out/${factor}x.txt"
    for method in chunked retrieval "$@"; do
        score "$method" "$factor"
    done
    table "$factor" chunked retrieval "$@"
    plot "$factor" chunked retrieval "$@"
done
