#!/usr/bin/env bash
# A model whose file's name is no UTF-8, and longer than the heat map's heading: trials and heat map can be read all the
# same, with U+FFFD in place of what is no character.
. "$(dirname "$0")/common.sh"

name=$(python3 -c 'print("\xe9" * 122)')
model=$work/$'a\xe9'$name.gguf
cp "$tiny/llama-tied-f32.gguf" "$model"
"$longhaul" needle -m "$model" -o "$work/out" --tasks passkey --lengths 256 --depths 0,100 >/dev/null 2>"$work/stderr" ||
    fail "$(cat "$work/stderr")"
python3 - "$work/out" "a�$name.gguf" <<'PYTHON' || fail "trials or heat map"
import json, sys, xml.etree.ElementTree as xml

trials = [json.loads(line) for line in open(sys.argv[1] + "/trials.jsonl", "rb").read().decode("utf-8").splitlines()]
assert len(trials) == 2, trials
assert all(t["model"].endswith("/" + sys.argv[2]) for t in trials), trials
texts = xml.parse(sys.argv[1] + "/needle.svg").getroot().iter("{http://www.w3.org/2000/svg}text")
heading = next(t.text for t in texts if t.get("class") == "heading")
assert ("Needle in a haystack: " + sys.argv[2]).startswith(heading) and len(heading) > 100, heading
PYTHON
