#!/usr/bin/env bash
# quickstart.sh: from a fresh Debian 12 to summaries of real documents, with nothing to decide.
# Installs packages, builds, fetches a small model (98 MB), and summarises the licences of
# /usr/share/common-licenses (real legal texts) on two ranks. Run it again and it goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."

corpus=/usr/share/common-licenses
model=models/SmolLM2-135M-Instruct.Q4_1.gguf
out=out/quickstart
SECONDS=0

step() {
    printf '\n[%d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"
}

step "1/4 Debian packages (a minute or two the first time)"
jobs/packages.sh build run

step "2/4 Building (about a minute)"
cmake --preset release >/dev/null
cmake --build --preset release

step "3/4 Fetching the model SmolLM2-135M-Instruct (98 MB, Apache-2.0)"
jobs/fetch_model.sh smollm2

# mpirun refuses root, and more ranks than cores, unless told otherwise; both are fine for a first try.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1
# Containers forbid the shared-memory shortcut that Open MPI tries first, which would only print warnings.
export OMPI_MCA_btl_vader_single_copy_mechanism=none

step "4/4 Summarising $corpus (some minutes on two cores; interrupt it if you like: the same command goes on)"
# Ranks share the weights, 405 MiB, through /dev/shm, of which containers often have 64.
ranks=2
room=$(df --output=avail --block-size=1M /dev/shm | tail -n 1 | tr -dc 0-9)
if [ "$room" -lt 512 ]; then
    ranks=1
    echo "/dev/shm has $room MiB here (containers: --shm-size=1g gives it more): one rank does it all"
fi
echo "mpirun -n $ranks --bind-to none build/longhaul summarize $corpus -m $model -o $out"
status=0
mpirun -n "$ranks" --bind-to none build/longhaul summarize "$corpus" -m "$model" -o "$out" || status=$?
# 1: some documents failed, which is recorded in the results; the others are done.
[ "$status" -le 1 ] || { echo "quickstart: the run ended with exit code $status (docs/user-guide.md)" >&2; exit "$status"; }

build/longhaul export "$out" --format md -o "$out/summaries.md"
step "Done. The summaries:"
cat "$out/summaries.md"
cat <<EOF

Where things are:
  $out/summaries.md   what you just read
  $out/results.h5     everything, for h5dump, h5py or: build/longhaul export $out --format jsonl
  $out/logs           one log for each rank
Your own documents: mpirun -n $ranks --bind-to none build/longhaul summarize FOLDER -m $model -o OUT
EOF
exit "$status"
