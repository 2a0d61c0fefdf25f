#!/bin/sh
# Reads random documents for SECONDS_TO_FUZZ (20) seconds, from the files of tests/data/corpus on.
# BUILD: build folder, SOURCE: source folder.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! echo 'int LLVMFuzzerTestOneInput(const char *b, unsigned long n) { return (void)b, (void)n, 0; }' |
    clang -x c -fsanitize=fuzzer - -o "$folder/probe" 2>/dev/null; then
    echo "skipped: no clang with libFuzzer"
    exit 77
fi
cd "$SOURCE"
clang -std=gnu17 -D_GNU_SOURCE -I. -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
    tests/fuzz/fuzz_document.c io/document.c io/document_text.c io/encoding.c io/digest.c base/utf8.c base/error.c \
    -lcrypto -o "$folder/fuzz_document"
mkdir "$folder/seeds"
find tests/data/corpus -type f -exec cp {} "$folder/seeds" \;
cd "$folder"
./fuzz_document -max_total_time="${SECONDS_TO_FUZZ:-20}" -max_len=4096 -timeout=10 -verbosity=0 -print_final_stats=1 seeds
