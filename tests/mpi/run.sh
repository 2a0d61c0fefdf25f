#!/usr/bin/env bash
# run.sh RANKS PROGRAM...: run an MPI test on this machine, with more ranks than cores if need be.
set -euo pipefail
ranks=$1
shift
options=(--oversubscribe --bind-to none --mca btl_vader_single_copy_mechanism none)
[ "$(id -u)" -eq 0 ] && options+=(--allow-run-as-root)
# For builds with -fsanitize=address: MPI leaks, our code must not.
export LSAN_OPTIONS="suppressions=$(dirname "$0")/lsan.supp:print_suppressions=0${LSAN_OPTIONS:+:$LSAN_OPTIONS}"
exec mpirun "${options[@]}" -n "$ranks" "$@"
