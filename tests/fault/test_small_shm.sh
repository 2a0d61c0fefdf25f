#!/usr/bin/env bash
# Ranks of a node share the weights through /dev/shm, of which containers have little: where it has no room for them
# the run ends with one line and code 5, in place of waiting for ever.
. "$(dirname "$0")/../e2e/common.sh"

[ "$(id -u)" -eq 0 ] || skip "mounting a small folder needs root"
mkdir "$work/small"
unshare --mount mount -t tmpfs -o size=64k none "$work/small" 2>"$work/said" || skip "no mount here: $(cat "$work/said")"

# summarize SIZE: with so much of it.
summarize() {
    # shellcheck disable=SC2016 # the inner shell's
    timeout 60 unshare --mount bash -c 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"' - "$1" "$work/small" \
        "$source/tests/mpi/run.sh" 2 "$longhaul" summarize "$texts/prose.txt" -m "$tiny/llama-tied-f32.gguf" -o "$work/out" \
        --max-new 2 --threads 1
}

export OMPI_MCA_osc_sm_backing_directory=$work/small
exit_code summarize 64k 2>"$work/stderr"
[ "$code" -eq 5 ] || { cat "$work/stderr"; fail "64 KiB: exit code $code, wanted 5"; }
grep -q "^longhaul: .*$work/small has 0.1 MiB free, and what the ranks of a node share needs 0.[0-9] there" "$work/stderr" ||
    { cat "$work/stderr"; fail "it does not say what is short"; }
summarize 64m 2>"$work/stderr" || { cat "$work/stderr"; fail "64 MiB: exit code $?"; }
