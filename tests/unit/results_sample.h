/* What the tests of the store write: a run, documents, and a directory of their own. */
#ifndef LONGHAUL_TESTS_RESULTS_SAMPLE_H
#define LONGHAUL_TESTS_RESULTS_SAMPLE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/results.h"

enum { SAMPLE_PATH = 256 };

/* A new directory below $TMPDIR. */
static inline void sample_directory(char out[SAMPLE_PATH])
{
    const char *base = getenv("TMPDIR");
    snprintf(out, SAMPLE_PATH, "%s/longhaul-store-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(out))
        abort();
}

static inline void sample_remove(const char *directory)
{
    char command[SAMPLE_PATH + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    if (system(command) != 0)
        abort();
}

static inline struct results_run sample_run(enum result_task task)
{
    return (struct results_run){
        .task = task,
        .version = "0.1.0",
        .model_path = "/models/tiny.gguf",
        .model_sha256 = "00ff",
        .tokenizer_hash = "11ee",
        .architecture = "llama",
        .options = "{\"chunk\":1024,\"temperature\":0}",
        .config_hash = "c0ffee",
        .hosts = "n1,n2",
        .dtype = "bf16",
        .started = "2026-01-31T12:00:00Z",
        .ranks = 4,
        .ring_size = 2,
    };
}

static inline struct text sample_text(const char *string)
{
    return (struct text){string, strlen(string)};
}

/* A document with its answer, no chunks, nodes, ledger or score. */
static inline struct result_document sample_document(const char *id, int64_t order, const char *answer)
{
    return (struct result_document){
        .id = id,
        .path = id,
        .sha256 = "abcd",
        .order = order,
        .bytes = 100,
        .chars = 90,
        .tokens_in = 30,
        .tokens_used = 30,
        .status = RESULT_OK,
        .attempts = 1,
        .strategy = "whole",
        .text = sample_text(answer),
        .finish_reason = "stop",
    };
}

#endif
