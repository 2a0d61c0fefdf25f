#!/usr/bin/env bash
# packages.sh [build] [run] [test]: install the Debian 12 packages that longhaul needs; all sets by default.
#   build  compiler, CMake and libraries
#   run    MPI, fetching models, looking into results
#   test   what the tests need besides: clang, a one-machine Slurm, h5py
# Packages that are there already are not touched, so it is quick the second time.
set -euo pipefail

declare -A sets=(
    [build]="build-essential cmake ninja-build pkg-config libopenmpi-dev libhdf5-openmpi-dev libdnnl-dev
             libpcre2-dev libutf8proc-dev libcjson-dev libssl-dev libgit2-dev libcmocka-dev"
    [run]="openmpi-bin hdf5-tools ca-certificates python3-pip unzip"
    [test]="clang libclang-rt-14-dev clang-format slurmctld slurmd slurm-client munge python3-h5py procps bible-kjv
            libboost-context-dev"
)

wanted=()
for name in "${@:-build run test}"; do
    for set in $name; do
        [ -n "${sets[$set]:-}" ] || { echo "packages: no set '$set' (build, run, test)" >&2; exit 2; }
        read -r -d '' -a packages <<<"${sets[$set]}" || true
        wanted+=("${packages[@]}")
    done
done

if ! command -v apt-get >/dev/null; then
    echo "packages: no apt-get here; these are the names under Debian 12: ${wanted[*]}" >&2
    exit 1
fi

missing=()
for package in "${wanted[@]}"; do
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "packages: all ${#wanted[@]} are installed"
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "packages: run this as root: apt-get install ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
fi
echo "packages: installing ${missing[*]}"
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null
