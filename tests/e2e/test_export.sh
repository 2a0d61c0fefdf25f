#!/usr/bin/env bash
# export -o: a file is replaced as a whole, also behind a link; what is no file is written to as it is; and what the
# results are made of is refused.
. "$(dirname "$0")/common.sh"

out=$work/out
"$longhaul" score "$texts/mixed.txt" -m "$tiny/llama-tied-f32.gguf" -o "$out" >/dev/null 2>"$work/stderr" ||
    fail "$(cat "$work/stderr")"
"$longhaul" export "$out" >"$work/wanted" || fail "export"
[ -s "$work/wanted" ] || fail "nothing exported"

# export_to FILE: says nothing.
export_to() {
    "$longhaul" export "$out" -o "$1" 2>"$work/stderr" || fail "-o $1: $(cat "$work/stderr")"
}

# same FILE WHAT: it has what was exported.
same() {
    cmp "$1" "$work/wanted" || fail "$2"
}

export_to "$work/new"
same "$work/new" "a new file"
echo "before" >"$work/file"
ln -s file "$work/link"
export_to "$work/link"
same "$work/file" "a file behind a link"
[ -L "$work/link" ] || fail "the link was replaced"
export_to "$out/inside"
same "$out/inside" "a file beside the index"

mkfifo "$work/pipe"
timeout 60 cat "$work/pipe" >"$work/read" &
reader=$!
export_to "$work/pipe"
wait "$reader"
same "$work/read" "a pipe"
[ -p "$work/pipe" ] || fail "the pipe was replaced"
null=/dev/null # for root, who could replace it, another one
mknod "$work/null" c 1 3 2>/dev/null && null=$work/null
export_to "$null"
[ -c "$null" ] || fail "$null was replaced"
export_to /dev/stdout | cmp - "$work/wanted" || fail "/dev/stdout, a pipe"
{ echo "head" && export_to /dev/stdout; } >"$work/behind"
{ echo "head" && cat "$work/wanted"; } | cmp - "$work/behind" || fail "/dev/stdout, a file that has a line"
exit_code "$longhaul" export "$out" -o /dev/full 2>"$work/stderr"
[ "$code" -eq 5 ] || fail "/dev/full: exit code $code, wanted 5"

# refuses FILE: in one line, with code 2, and the results are as they were.
refuses() {
    exit_code "$longhaul" export "$out" -o "$1" 2>"$work/stderr"
    [ "$code:$(wc -l <"$work/stderr")" = 2:1 ] || fail "-o $1: exit code $code, $(cat "$work/stderr")"
    "$longhaul" export "$out" | cmp - "$work/wanted" || fail "-o $1 damaged the results"
}

ln -s out/results.h5 "$work/index"
refuses "$out/results.h5"
refuses "$work/index"
refuses "$out/parts/part-000001.h5"
refuses "$out/parts/../parts/new"
[ ! -e "$out/parts/new" ] || fail "a file among the parts"
echo "files, pipes and devices; the results are refused"
