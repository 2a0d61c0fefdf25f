#!/usr/bin/env bash
# Position methods from the command line to the record: the context follows, any number of ranks scores alike, and
# what was read in one way is not gone on with in another.
. "$(dirname "$0")/common.sh"

model=$tiny/llama-tied-f32.gguf # trained to 8192
text=$texts/legal_long.txt      # 12,119 of its tokens

document=$texts/prose.txt
# planned WANTED OPTIONS...: the plan of the document speaks of it
planned() {
    local wanted=$1
    shift
    "$longhaul" plan "$document" -m "$model" "$@" >"$work/plan" 2>&1
    grep -q -- "$wanted" "$work/plan" || { cat "$work/plan"; fail "plan $*: nothing of \"$wanted\""; }
}

planned "context 8192, .*positions as trained (the model's own)"
planned "context 16384, .*positions yarn, factor 2 beyond 8192 tokens (--positions)" --positions yarn --factor 2
planned "context 20480, .*positions pi, factor 2.5 beyond 8192 tokens (--positions, for --context)" \
    --positions pi --context 20480
planned "context 16384, .*positions dynamic, factor 1 beyond 8192 tokens, by segments (--positions), segments of 512" \
    --positions dynamic --context 16384 --segment 512
planned "beyond the 16384 tokens that the model's positions reach" --positions ntk --factor 2 --context 20000

# Advice goes by how far a document is beyond, and only to who has not chosen.
document=$text
planned "advice: 1 documents are beyond the 8192 .* 1.5 times (legal_long.txt).* --strategy whole .*--positions dynamic --context 13312"
planned "tokens" --strategy whole
! grep -q "advice" "$work/plan" || fail "advice to a user who has chosen"
# A file that has its positions stretched is not told to stretch them otherwise; one of windows alone reads it whole as it is.
python3 "$source/tests/e2e/with_metadata.py" "$model" "$work/yarn.gguf" llama.rope.scaling.type=yarn \
    llama.rope.scaling.factor=1.25 llama.rope.scaling.original_context_length=6553
trained=$model
model=$work/yarn.gguf
planned "advice: .* beyond the 8192 .* --strategy whole"
! grep -q "dynamic" "$work/plan" || fail "advised to replace the file's own: $(cat "$work/plan")"
model=$tiny/mistral-f16.gguf
planned "tokens"
! grep -q "advice" "$work/plan" || fail "advice for a model of windows: $(cat "$work/plan")"
model=$trained
document=$texts/prose.txt
planned "tokens"
! grep -q "advice" "$work/plan" || fail "advice for a document that fits"

# needle reads as score does, and warns as it does.
"$longhaul" needle -m "$model" -o "$work/needle" --tasks passkey --lengths 1k --depths 50 --context 20000 --threads 1 \
    >"$work/table" 2>"$work/warned" || { cat "$work/warned"; fail "needle --context"; }
grep -q "beyond the 8192 tokens that the model's positions reach" "$work/warned" || fail "needle: no warning of --context"

# Beside stretched positions stands the untouched model, as far as it goes.
"$longhaul" needle -m "$model" -o "$work/beside" --tasks niah_multikey_2,cwe --lengths 2k,9k --depths 50 --positions yarn \
    --factor 2 --threads 1 >/dev/null 2>"$work/stderr" || { cat "$work/stderr"; fail "needle --positions"; }
python3 - "$work/beside/trials.jsonl" <<'PYTHON' || fail "trials of needle --positions"
import json, sys
trials = [json.loads(line) for line in open(sys.argv[1])]
asked = [(t["task"], t["length"]) for t in trials if t["setting"] == "asked" and t["positions"].startswith("positions yarn")]
untouched = [(t["task"], t["length"]) for t in trials if t["setting"] == "untouched" and t["positions"] == "positions as in the model's file"]
assert sorted(asked) == [(task, n) for task in ("cwe", "niah_multikey_2") for n in (2048, 9216)], trials
assert sorted(untouched) == [(task, 2048) for task in ("cwe", "niah_multikey_2")], trials
PYTHON

# What policies reach counts inside what is seen: the longer text is beyond what the model knows only where they are.
far="beyond the 8192 that the model's positions reach"
planned_near() {
    planned "context" "$@"
    ! grep -q "beyond the" "$work/plan" || { cat "$work/plan"; fail "plan $*: warns of positions"; }
}
planned_near --policy sinks:window=20000
document=$text
planned "sinks=4 takes up to [0-9]* positions, .*$far" --policy sinks:window=20000
planned "h2o.* takes up to 10768 positions, .*$far" --policy h2o --segment 10000
planned "retrieval.*$far" --policy retrieval:top=1024 --segment 512
planned_near --policy h2o --segment 4000
planned_near --policy sinks:window=8000

for ranks in 1 3; do
    for method in yarn dynamic; do
        on_ranks "$ranks" score "$text" -m "$model" -o "$work/$method-$ranks" --dtype f32 --positions "$method" \
            --factor 2 --ring "$ranks" --segment 1000 --threads 1 >/dev/null
        "$longhaul" export "$work/$method-$ranks" --format csv >"$work/$method-$ranks.csv"
    done
done
for method in yarn dynamic; do
    [ "$(wc -l <"$work/$method-1.csv")" -gt 8192 ] || fail "the text is not beyond the context"
    python3 "$compare" "$work/$method-1.csv" "$work/$method-3.csv" --max-diff 1e-3
done

# refused OUT OPTIONS...: a run that would go on in another way
refused() {
    local out=$1
    shift
    exit_code "$longhaul" score "$text" -m "$model" -o "$out" --dtype f32 "$@" >/dev/null 2>"$work/stderr"
    [ "$code" -eq 2 ] && grep -q "other options" "$work/stderr" || fail "$* went on in $out with exit code $code"
}

refused "$work/yarn-1" --positions yarn --factor 3
refused "$work/yarn-1" --positions ntk --factor 2
refused "$work/dynamic-1" --positions dynamic --factor 2 --segment 512
"$longhaul" score "$text" -m "$model" -o "$work/yarn-1" --dtype f32 --positions yarn --factor 2 --segment 512 >/dev/null
grep -aq "positions yarn, factor 2 beyond" "$work/yarn-1/results.h5" || fail "the record says nothing of the positions"
echo "planned, read alike by 1 and 3 ranks, and kept apart"
