#!/usr/bin/env bash
# Every bad option and every missing file: the documented exit code, one line on stderr, and nothing written.
. "$(dirname "$0")/common.sh"

model=$tiny/llama-tied-f32.gguf
text=$texts/prose.txt
out=$work/out
wrong=0

# expect CODE ARGUMENTS...
expect() {
    local wanted=$1 lines
    shift
    exit_code timeout 60 "$longhaul" "$@" >"$work/stdout" 2>"$work/stderr"
    lines=$(wc -l <"$work/stderr")
    if [ "$code" -ne "$wanted" ] || [ "$lines" -ne 1 ] || [ -e "$out" ]; then
        echo "longhaul $*: exit code $code (wanted $wanted), $lines lines on stderr:"
        sed 's/^/    /' "$work/stderr"
        [ ! -e "$out" ] || { echo "    and $out was made"; rm -rf "$out"; }
        wrong=$((wrong + 1))
    fi
}

head -c 1000 "$model" >"$work/short.gguf"
echo "not a model" >"$work/text.gguf"
echo "0-99 full" >"$work/wrong-layer"
echo "0 full" >"$work/one-layer"
printf 'a\0b\n' >"$work/binary"
{ head -c 9000 /dev/zero | tr '\0' x && printf 'a\0b\n'; } >"$work/late-nul"
: >"$work/empty"
printf '# all\n0 forgetful\n' >"$work/wrong-policy"

expect 2
expect 2 sumarize "$text" -m "$model" -o "$out"
expect 2 summarize -m "$model" -o "$out"
expect 2 summarize "$text" -o "$out"
expect 2 summarize "$text" -m "$model"
expect 2 summarize "$text" -m "$model" -o
expect 2 summarize "$text" -m "$model" -o ""
expect 2 needle -m "$model" --tasks passkey -o ""
expect 2 export "$work" -o ""
expect 2 summarize "$text" -m "" -o "$out"
expect 2 summarize "$text" -m "$model" -o "$out" --no-such-option
expect 2 summarize "$text" -m "$model" -o "$out" --segment 0
expect 2 summarize "$text" -m "$model" -o "$out" --segment -5
expect 2 summarize "$text" -m "$model" -o "$out" --segment 12x
expect 2 summarize "$text" -m "$model" -o "$out" --segment 99999999999999999999
expect 2 needle -m "$model" -o "$out" --tasks niah,haystack --haystack "$text"
expect 2 needle -m "$model" -o "$out" --tasks niah
expect 2 needle -m "$model" -o "$out" --tasks passkey --lengths 1k,
expect 2 needle -m "$model" -o "$out" --tasks passkey --lengths 20
expect 2 needle -m "$model" -o "$out" --tasks passkey --lengths 1000000
expect 2 needle -m "$model" -o "$out" --tasks passkey,cwe --lengths 1500,4096
expect 2 needle -m "$model" -o "$out" --tasks passkey --depths 101
expect 2 needle -m "$model" -o "$out" --tasks passkey --memory-budget 4096
expect 4 needle -m "$model" -o "$out" --haystack "$work/nowhere"
expect 2 summarize "$text" -m "$model" -o "$out" --ring 0
expect 2 summarize "$text" -m "$model" -o "$out" --dtype f64
expect 2 summarize "$text" -m "$model" -o "$out" --strategy best
expect 2 summarize "$text" -m "$model" -o "$out" --chunk 100 --overlap 100
expect 2 summarize "$text" -m "$model" -o "$out" --temperature -1
expect 2 summarize "$text" -m "$model" -o "$out" --top-p nan
expect 2 summarize "$text" -m "$model" -o "$out" --top-p 1.5
expect 2 summarize "$text" -m "$model" -o "$out" --max-error-rate 2
expect 2 summarize "$text" -m "$model" -o "$out" --policy forgetful
expect 2 summarize "$text" -m "$model" -o "$out" --policy window:window=0
expect 2 summarize "$text" -m "$model" -o "$out" --policy sinks:sinks=many
expect 2 summarize "$text" -m "$model" -o "$out" --policy full:window=8
expect 2 score "$text" -m "$model" -o "$out" --positions further
expect 2 score "$text" -m "$model" -o "$out" --positions yarn
expect 2 score "$text" -m "$model" -o "$out" --positions pi --factor 0.5
expect 2 score "$text" -m "$model" -o "$out" --positions none --factor 2
expect 2 score "$text" -m "$model" -o "$out" --positions llama3
expect 2 score "$text" -m "$model" -o "$out" --positions longrope --factor 2
expect 2 score "$text" -m "$model" -o "$out" --factor 2
expect 2 score "$text" -m "$model" -o "$out" --memory-budget 3x --policy retrieval
expect 2 score "$text" -m "$model" -o "$out" --memory-budget 100 --policy retrieval
expect 2 score "$text" -m "$model" -o "$out" --memory-budget 1GiB --policy full
expect 2 score "$text" -m "$model" -o "$out" --memory-budget 1GiB --policy sinks:window=512
expect 2 score "$text" -m "$model" -o "$out" --memory-budget 512 --policy infllm
expect 2 score "$text" -m "$model" -o "$out" --memory-budget 1GiB
expect 2 score "$text" -m "$model" -o "$out" --memory-budget 1024 --strategy whole --against full
expect 2 score "$text" -m "$model" -o "$out" --memory-budget 1024 --strategy whole --truncate
expect 2 score "$text" -m "$model" -o "$out" --memory-budget 1024 --policy retrieval --layers "$work/one-layer"
expect 2 needle -m "$model" -o "$out" --tasks passkey --memory-budget 1024 --policy h2o --layers "$work/one-layer"
expect 2 score "$text" -m "$model" -o "$out" --policy compressive:form=median
expect 2 score "$text" -m "$model" -o "$out" --strategy refine
expect 2 export "$work" --format xml
expect 2 tokenize -m "$model"
expect 3 summarize "$text" -m "$work/short.gguf" -o "$out"
expect 3 summarize "$text" -m "$work/text.gguf" -o "$out"
expect 3 inspect "$work/short.gguf"
expect 3 inspect "$text"
expect 3 summarize "$text" -m "$model" -o "$out" --layers "$work/wrong-layer"
expect 3 summarize "$text" -m "$model" -o "$out" --layers "$work/wrong-policy"
expect 3 summarize "$text" -m "$model" -o "$out" --layers "0 full; 99 full"
expect 3 summarize "$text" -m "$model" -o "$out" --layers "$work/empty"
expect 3 score "$text" -m "$model" -o "$out" --layers <(echo "0 sinks:window=8")
expect 2 plan "$text" -m "$model" -o "$out"
expect 3 tokenize "$work/binary" -m "$model"
expect 3 needle -m "$model" -o "$out" --haystack "$work/binary"
expect 3 summarize "$text" -m "$model" -o "$out" --prompt "$work/binary"
expect 3 summarize "$text" -m "$model" -o "$out" --prompt "$work/late-nul"
expect 3 summarize "$text" -m "$model" -o "$out" --prompt "$work/empty"
expect 2 summarize "$text" -m "$model" -o "$out" --policy hierarchical
expect 4 inspect "$work/none.gguf"
expect 4 summarize "$text" -m "$work/none.gguf" -o "$out"
expect 4 summarize "$work/nowhere" -m "$model" -o "$out"
expect 4 score "$text" -m "$model" -o "$out" --layers "$work/nowhere"
expect 4 tokenize "$work/nowhere" -m "$model"
expect 4 summarize "$text" -m "$model" -o "$out" --prompt "$work/nowhere"
expect 4 export "$work/nowhere"
expect 4 export "$work/no"$'\n'"where"
expect 4 tokenize "$work/no"$'\n\e[2J'"where" -m "$model"
! grep -q $'\e' "$work/stderr" || { echo "an escape sequence on stderr"; wrong=$((wrong + 1)); }
expect 4 score "$work/no"$'\n'"where" -m "$model" -o "$out"

# The help of every command fits a screen, and so does that of the policies.
for topic in "" summarize score needle plan export tokenize inspect policies; do
    "$longhaul" help $topic >"$work/help" || fail "help $topic"
    [ "$(wc -l <"$work/help")" -le 50 ] || fail "help $topic: $(wc -l <"$work/help") lines"
    ! grep -nE '^.{101}' "$work/help" || fail "help $topic: a line of more than 100 columns"
done
"$longhaul" summarize --help | cmp -s - <("$longhaul" help summarize) || fail "summarize --help"
"$longhaul" help policies | grep -q '^ *infllm ' || fail "help policies"
exit_code "$longhaul" help politics >/dev/null 2>&1
[ "$code" -eq 2 ] || fail "help politics ended with $code"

# Other lines in the same file of --layers are other options.
echo "0 window:window=64" >"$work/layers"
"$longhaul" score "$text" -m "$model" -o "$work/kept" --layers "$work/layers" >/dev/null 2>&1 || fail "score --layers"
echo "0 window:window=65" >"$work/layers"
exit_code "$longhaul" score "$text" -m "$model" -o "$work/kept" --layers "$work/layers" >/dev/null 2>&1
[ "$code" -eq 2 ] || fail "a run with other --layers went on with code $code"

# Lines on the command line do what they do in a file, and are kept as well.
table="0 full; 0 window:window=65"
"$longhaul" score "$text" -m "$model" -o "$work/of-file" --layers "$work/layers" >"$work/of-file.txt" 2>/dev/null
"$longhaul" score "$text" -m "$model" -o "$work/of-lines" --layers "$table" >"$work/of-lines.txt" 2>/dev/null ||
    fail "score --layers \"$table\""
cmp -s "$work/of-file.txt" "$work/of-lines.txt" || fail "--layers: lines read otherwise than in a file"
"$longhaul" score "$text" -m "$model" -o "$work/of-lines" --layers "$table" >/dev/null 2>"$work/again" ||
    fail "--layers \"$table\": not gone on with"
grep -q "1 done before" "$work/again" || fail "--layers \"$table\": done again"

# Under most policies, be it the one chosen beyond the context, what is kept may depend on the segments: another --segment
# is another run. Under none it is not, nor under one that goes by positions alone.
# goes_on CODE OPTIONS...: a run in segments of 512, gone on with in segments of 256
goes_on() {
    local wanted=$1
    shift
    rm -rf "$work/segments"
    "$longhaul" score "$text" -m "$model" -o "$work/segments" --segment 512 "$@" >/dev/null 2>&1 || fail "score $*"
    exit_code "$longhaul" score "$text" -m "$model" -o "$work/segments" --segment 256 "$@" >/dev/null 2>&1
    [ "$code" -eq "$wanted" ] || fail "a run of $* with other segments ended with $code, wanted $wanted"
}
goes_on 0
goes_on 0 --policy full
goes_on 0 --policy window:window=100
goes_on 2 --policy h2o
goes_on 2 --strategy whole --memory-budget 1024
goes_on 2 --against snapkv

[ "$wrong" -eq 0 ] || fail "$wrong of the cases above"
echo "every case refused as documented"
