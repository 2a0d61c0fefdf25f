#!/usr/bin/env bash
# run.sh RANKS PROGRAM...: run an MPI test on this machine, with more ranks than cores if need be.
set -euo pipefail
ranks=$1
shift
options=(--oversubscribe --bind-to none --mca btl_vader_single_copy_mechanism none)
[ "$(id -u)" -eq 0 ] && options+=(--allow-run-as-root)
exec mpirun "${options[@]}" -n "$ranks" "$@"
