#!/usr/bin/env bash
# run.sh [--all]: build the program and run its tests, the quick ones first.
# --all also fetches the larger models and the original tokenizers that some tests compare with, and that are skipped
# without them, and runs the longest tests in full: two hours more.
# The last line says what came of it: N passed, N failed, N skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
    "" | --all) ;;
    *) echo "usage: tests/run.sh [--all]" >&2; exit 2 ;;
esac

passed=0
failed=0
skipped=0

finish() {
    echo "$passed passed, $failed failed$([ "$skipped" -eq 0 ] || echo ", $skipped skipped")"
    [ "$failed" -eq 0 ]
    exit
}

# attribute NAME FILE: a number of the <testsuite ...> line that ctest writes.
attribute() {
    grep -o "\b$1=\"[0-9]*\"" "$2" | head -n 1 | tr -dc 0-9
}

# Packages and models that cannot be had are said, and what needs them fails or is skipped below.
jobs/packages.sh build run test || echo "run.sh: going on with the packages that are there"
jobs/fetch_model.sh smollm2 || echo "run.sh: going on without SmolLM2; its tests will be skipped"
if [ "${1:-}" = --all ]; then
    export LONGHAUL_TEST_ALL=1
    jobs/fetch_model.sh qwen2.5-coder || echo "run.sh: going on without Qwen2.5-Coder; its tests will be skipped"
    jobs/fetch_model.sh gemma3 || echo "run.sh: going on without Gemma 3; its tests will be skipped"
    # for test_tokens_spm.sh alone: other tests want Debian's own packages
    [ -d build/python/mistral_common ] || python3 -m pip install --quiet --target build/python \
        sentencepiece==0.2.3 protobuf==7.36.2 tokenizers==0.23.3 gguf==0.19.0 mistral-common==1.13.1 ||
        echo "run.sh: going on without the original tokenizers; their test will be skipped"
fi

if ! { cmake --preset release >/dev/null && cmake --build --preset release; }; then
    failed=1
    finish
fi

for label in unit mpi e2e fault reference fuzz; do
    report=$PWD/build/tests-$label.xml
    rm -f "$report"
    ended=0
    ctest --test-dir build -L "^$label$" --no-tests=error --output-on-failure --parallel "$(nproc)" \
        --output-junit "$report" </dev/null || ended=$?
    [ -f "$report" ] || { failed=$((failed + 1)); continue; }
    failures=$(attribute failures "$report")
    # A test whose program is missing is "skipped" to the report, but a failure to ctest and to us.
    if [ "$ended" -ne 0 ] && [ "$failures" -eq 0 ]; then
        failed=$((failed + 1))
    fi
    skips=$(attribute skipped "$report")
    passed=$((passed + $(attribute tests "$report") - failures - skips))
    failed=$((failed + failures))
    skipped=$((skipped + skips))
done
[ $((passed + failed)) -gt 0 ] || failed=1
finish
