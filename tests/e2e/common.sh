# common.sh: what the whole-program tests share; sourced, first thing.
# Gives $source (the checkout), $longhaul (the program), $work (a scratch folder, removed at the end).
set -euo pipefail

source=${SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
longhaul=${BUILD:-$source/build}/longhaul
tiny=$source/tests/data/tiny
texts=$source/tests/reference/texts
compare=$source/tests/reference/compare_logprobs.py
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

skip() {
    echo "skipped: $*"
    exit 77
}

# on_ranks N ARGUMENTS...: the program on N ranks, on a machine of any size.
on_ranks() {
    local ranks=$1
    shift
    timeout 600 "$source/tests/mpi/run.sh" "$ranks" "$longhaul" "$@"
}

# exit_code COMMAND...: runs it and puts its exit code into $code.
exit_code() {
    code=0
    "$@" || code=$?
}

# holds EXPRESSION: of awk, with numbers for its names.
holds() {
    awk "BEGIN {exit !($1)}" || fail "not so: $1"
}

# answers OUT: a line for each document (answers.py).
answers() {
    "$longhaul" export "$1" --format jsonl | python3 "$source/tests/e2e/answers.py"
}

# as_documented OUT: h5py finds in the results what docs/formats.md promises, where some Python has it.
as_documented() {
    local python
    for python in python3 /usr/bin/python3; do
        exit_code "$python" "$source/tests/reference/results.py" "$1" --quiet
        [ "$code" -eq 77 ] || break
    done
    [ "$code" -eq 0 ] || [ "$code" -eq 77 ] || fail "$1: the file is not as documented"
}

# model_file FILE: prints its path (the environment's, or in the checkout's models/); fails when it is not there.
model_file() {
    local path=$source/models/$1
    if [ "$1" = SmolLM2-135M-Instruct.Q4_1.gguf ] && [ -n "${LONGHAUL_TEST_MODEL:-}" ]; then
        path=$LONGHAUL_TEST_MODEL
    fi
    [ -f "$path" ] || return 1
    echo "$path"
}

[ -x "$longhaul" ] || fail "no program at $longhaul; build it first"
