#!/usr/bin/env bash
# needle on two ranks: every trial is a strict line of JSON, the untouched model stands beside a policy, the table and the
# heat map say what the trials do, and the same command again does nothing that is done.
. "$(dirname "$0")/common.sh"

model=$(model_file SmolLM2-135M-Instruct.Q4_1.gguf) || skip "no SmolLM2 (jobs/fetch_model.sh)"
out=$work/hay/out # in the folder of the haystack, and no part of it
mkdir "$work/hay"
cp "$texts/prose.txt" "$work/hay"

# needle ARGUMENTS...: on two ranks, the grid of this test.
needle() {
    on_ranks 2 needle -m "$model" -o "$out" --haystack "$work/hay" --tasks niah,passkey,vt --lengths 900,1200 \
        --depths 10,90 --policy sinks:window=124,sinks=4 --threads 1 "$@" >"$work/table" 2>"$work/stderr"
}

# check TRIALS: the lines are those of the grid, each once, and the scores follow from answers and references.
check() {
    python3 - "$out/trials.jsonl" "$1" <<'PYTHON'
import json, math, sys

def refuse(constant):
    raise ValueError(constant)

lines = open(sys.argv[1], "rb").read().decode("utf-8").splitlines()
trials = [json.loads(line, parse_constant=refuse) for line in lines]
assert len(trials) == int(sys.argv[2]), f"{len(trials)} trials, wanted {sys.argv[2]}"
places = {(t["task"], t["length"], t["depth"], t["trial"], t["setting"]) for t in trials}
assert len(places) == len(trials), "a trial is there twice"
for t in trials:
    found = sum(e.lower() in t["answer"].lower() for e in t["expected"])
    assert math.isclose(t["score"], found / len(t["expected"])), t
    answer = {"niah": 64, "passkey": 16, "vt": 30}[t["task"]]
    assert t["length"] - answer - 40 < t["prompt_tokens"] <= t["length"] - answer, t
    assert (t["depth"] is None) == (t["task"] == "vt"), t
    assert t["policy"].startswith("sinks") == (t["setting"] == "asked"), t
    assert t["positions"] and t["seconds"] > 0 and t["finish"] in ("stop", "length"), t
asked, untouched = (
    [t["score"] for t in trials if t["setting"] == s and t["task"] == "niah" and t["depth"] == 10]
    for s in ("asked", "untouched"))
assert min(untouched) == 1, "the untouched model does not find the needle"
assert max(asked) == 0, "a window of 128 tokens finds a needle that has left it"
PYTHON
}

# check_maps CELLS: the table has so many numbers, each the mean score of its trials, and the heat map has the same.
check_maps() {
    python3 - "$out/trials.jsonl" "$work/table" "$out/needle.svg" "$1" <<'PYTHON'
import json, re, sys, xml.etree.ElementTree as xml

trials = [json.loads(line) for line in open(sys.argv[1])]
means, settings = [], set()
for block in open(sys.argv[2]).read().split("\n\n")[1:]:
    title, head, *rows = block.strip("\n").split("\n")
    title, setting = re.match(r"(.*), (as asked|untouched model) \(", title).groups()
    lengths = [int(n) for n in head.split()[1:]]
    settings.add(setting)
    for row in rows:
        name, numbers = row[:16].strip(), row[16:].split()
        assert len(numbers) == len(lengths), row
        for length, number in zip(lengths, numbers):
            scores = [t["score"] for t in trials
                      if t["task"] == (name if title == "all tasks" else title) and t["length"] == length
                      and (title == "all tasks" or f"{t['depth']} %" == name)
                      and t["setting"] == ("asked" if setting == "as asked" else "untouched")]
            means.append(100 * sum(scores) / len(scores))
            assert number == f"{means[-1]:.1f}", (title, setting, name, length, number, means[-1])
assert settings == {"as asked", "untouched model"}, settings
assert len(means) == int(sys.argv[4]), len(means)
svg = "{http://www.w3.org/2000/svg}"
drawn = xml.parse(sys.argv[3]).getroot()
assert len([r for r in drawn.iter(svg + "rect") if r.get("height") == "25"]) == len(means), "boxes of the heat map"
assert [t.text for t in drawn.iter(svg + "text") if t.get("class") in ("light", "dark")] == [f"{m:.0f}" for m in means]
PYTHON
}

needle || { cat "$work/stderr"; fail "exit code $?"; }
check 20 || fail "trials.jsonl"
check_maps 28 || fail "the table or the heat map"

# A line cut off by a dying machine is done again, no other; more trials are added to those there are.
cp "$out/trials.jsonl" "$work/before"
truncate -s -40 "$out/trials.jsonl"
needle || { cat "$work/stderr"; fail "exit code $?"; }
head -n 19 "$work/before" | cmp - <(head -n 19 "$out/trials.jsonl") || fail "trials were done again"
check 20 || fail "trials.jsonl, gone on with"
needle --tasks passkey --trials 2 || { cat "$work/stderr"; fail "exit code $?"; }
check 28 || fail "trials.jsonl, with more trials"
check_maps 8 || fail "the table or the heat map of more trials"

# Other options are not mixed with these; lengths that cannot be held are refused.
exit_code needle --seed 5
[ "$code" -eq 2 ] || fail "another seed: exit code $code, wanted 2"
exit_code needle --policy full --lengths 9k -o "$work/other"
[ "$code" -eq 2 ] && grep -q 8192 "$work/stderr" || fail "9k tokens: exit code $code, wanted 2 and the limit"
[ ! -e "$work/other" ] || fail "a refused run has made its folder"
