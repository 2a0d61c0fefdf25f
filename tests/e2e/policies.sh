# policies.sh: scores of one text under any policy, on any number of ranks; sourced by test_policies_*.sh.
# The text has some 3,000 tokens for the tiny models, and its end repeats its beginning, so that what is far away counts.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

text=$work/text.txt
{ head -c 1500 "$texts/legal_long.txt"; cat "$texts/mixed.txt"; head -c 1500 "$texts/legal_long.txt"; } >"$text"

# score NAME RANKS MODEL POLICY: to $work/NAME.csv. POLICY may be a table of layers, or `own`:
# what the model's file says.
score() {
    local ways=(--policy "$4")
    [[ $4 != [0-9]* ]] || ways=(--layers "$4")
    [ "$4" != own ] || ways=()
    rm -rf "${work:?}/$1"
    on_ranks "$2" score "$text" -m "$3" -o "$work/$1" --dtype f32 --threads 1 --ring "$2" --segment 300 "${ways[@]}" \
        </dev/null >/dev/null 2>"$work/$1.err" || fail "$4 on $2 ranks: $(cat "$work/$1.err")"
    "$longhaul" export "$work/$1" --format csv >"$work/$1.csv"
}

# difference NAME OTHER: the largest of their log-probabilities
difference() {
    python3 "$compare" "$work/$1.csv" "$work/$2.csv" | sed 's/.*largest difference \([^ ]*\) .*/\1/'
}

# exceeds NUMBER BOUND
exceeds() {
    python3 -c 'import sys; sys.exit(not float(sys.argv[1]) > float(sys.argv[2]))' "$1" "$2"
}

# agrees MODEL "RANKS..." POLICY: so many ranks say what 1 rank says, to 1e-3; and it really forgets: it says something else
# than what was scored as full.
agrees() {
    local model=$1 tried=$2 policy=$3 ranks gap worst=0 forgot
    score one 1 "$model" "$policy"
    forgot=$(difference full one)
    exceeds "$forgot" 0.05 || fail "$policy forgets nothing: $forgot from full"
    for ranks in $tried; do
        score many "$ranks" "$model" "$policy"
        gap=$(difference one many)
        ! exceeds "$gap" 1e-3 || fail "$policy: $ranks ranks differ by $gap from 1"
        ! exceeds "$gap" "$worst" || worst=$gap
    done
    echo "$policy: 1 and $tried ranks differ by $worst at most (from full: $forgot)"
}

# ranks_agree MODEL "RANKS..." POLICY...: each agrees
ranks_agree() {
    local model=$1 tried=$2 policy
    shift 2
    score full 1 "$model" full
    for policy; do
        agrees "$model" "$tried" "$policy"
    done
}

# With windows that are much shorter than the text; full is in test_score_segments_and_ranks.sh.
forgetful=(
    window:window=100
    sinks:window=100,sinks=4
    retrieval:window=100,sinks=4,top=3
    retrieval:window=60,sinks=0,top=2,memory=640
    infllm:window=150,sinks=20,top=2
    infllm:window=150,sinks=20,top=2,memory=512
    h2o:window=64,slots=64
    snapkv:window=64,slots=64
    compressive:window=100,slots=40,rate=4,form=mean
    compressive:window=100,slots=40,rate=4,form=mean,weigh=1
    compressive:window=100,slots=40,rate=4,form=max
    compressive:window=100,slots=40,rate=4,form=used
    memory:window=20,memory=500
    memory:window=20,memory=1000,top=30
    landmark:token=381,block=16,top=3
    "0 window:window=100; 1 memory:window=20,memory=500"
    "0 retrieval:window=60,sinks=4,top=2; 1 full" # the other way round a near tie may fall otherwise: docs/design.md
)
