#!/bin/sh
# The GGUF reader under libFuzzer with the address and undefined-behaviour sanitizers, for FUZZ_SECONDS (20).
# Builds by itself, beside any CMake build. Exits 77 where clang or its fuzzer is missing.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"

cc=${FUZZ_CC:-clang}
flags="-std=gnu17 -D_GNU_SOURCE -O1 -g -I. -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all"
printf 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n);\n%s\n' \
    'int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return p && n > 1u << 30 ? 1 : 0; }' >"$work/probe.c"
if ! "$cc" $flags "$work/probe.c" -o "$work/probe" 2>"$work/why"; then
    echo "skipped: $cc cannot build a fuzzer: $(head -n 1 "$work/why")"
    exit 77
fi

"$cc" $flags -Dmmap=exact_mmap -Dmunmap=exact_munmap -c io/gguf.c -o "$work/gguf.o"
"$cc" $flags tests/fuzz/fuzz_gguf.c "$work/gguf.o" io/gguf_reader.c base/tensor.c base/quant.c base/bundle.c base/arena.c base/error.c \
    -lm -o "$work/fuzz"
mkdir "$work/seeds"
python3 tests/fuzz/seeds_gguf.py "$work/seeds"
"$work/fuzz" -max_total_time="${FUZZ_SECONDS:-20}" -max_len=8192 -rss_limit_mb=1024 -timeout=5 \
    -artifact_prefix="$work/" "$work/seeds" >"$work/log" 2>&1 || {
    tail -n 60 "$work/log"
    exit 1
}
tail -n 2 "$work/log"
