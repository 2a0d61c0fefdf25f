#!/usr/bin/env bash
# Ranks that mpirun has bound to a few of the machine's CPUs are told of it, and use those; unbound they use all.
. "$(dirname "$0")/common.sh"

[ "$(nproc)" -gt 1 ] || skip "a machine of one CPU"
options=(--oversubscribe --mca btl_vader_single_copy_mechanism none)
[ "$(id -u)" -ne 0 ] || options+=(--allow-run-as-root)

# said BINDING: what one rank says of its plan
said() {
    mpirun "${options[@]}" -n 1 --bind-to "$1" "$longhaul" plan "$texts/prose.txt" -m "$tiny/llama-tied-f32.gguf" 2>&1
}
said none >"$work/none"
grep -q " $(nproc) threads a rank" "$work/none" || fail "not all CPUs: $(cat "$work/none")"
! grep -q "may use" "$work/none" || fail "a warning of nothing: $(cat "$work/none")"
mpirun "${options[@]}" -n 1 --bind-to hwthread true >"$work/why" 2>&1 || skip "mpirun does not bind here: $(cat "$work/why")"
said hwthread >"$work/bound" || fail "bound: $(cat "$work/bound")"
grep -q " 1 threads a rank" "$work/bound" || fail "not its own CPU: $(cat "$work/bound")"
grep -q "may use 1 of its $(nproc) CPUs: mpirun --bind-to none" "$work/bound" || fail "no warning: $(cat "$work/bound")"
