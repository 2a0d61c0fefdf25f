/* The trials of a needle run on disk: one JSON object a line (docs/formats.md), appended and synced as each trial
 * ends. A run that goes on reads them again.
 *
 * needle_log_open reads what is there and hands every trial to a visitor; needle_log_gather, as often as there are
 * other files; needle_log_add; needle_log_close. A last line that was cut off when the machine died is taken away.
 * Whoever has the log open holds the lock of its folder.
 */
#ifndef LONGHAUL_PIPELINE_NEEDLE_LOG_H
#define LONGHAUL_PIPELINE_NEEDLE_LOG_H

#include "base/error.h"
#include "pipeline/needle_tasks.h"

/* What the lines of one run have in common; all strings borrowed. */
struct needle_identity {
    const char *config; /* hash of all that decides an answer, the grid aside */
    const char *model, *dtype, *version;
};

struct needle_record {
    struct needle_cell cell;
    int setting;
    int64_t prompt_tokens, generated;
    int n_expected;
    const char (*expected)[NEEDLE_EXPECTED_BYTES];
    struct text answer;  /* as the tokens spell it */
    const char *failure; /* NULL, or why there is no answer; then there is no score either */
    double score;
    const char *finish;             /* "stop", "length" */
    const char *policy, *positions; /* in effect */
    double prefill_seconds, decode_seconds;
    const char *dtype; /* "f32", "bf16"; of a trial that was there */
};

/* A trial that was there: only its cell, setting, prompt_tokens, dtype, score, and failure if it failed. */
struct needle_visitor {
    void (*visit)(void *context, const struct needle_record *record);
    void *context;
};

struct needle_log;

/* path need not exist; config and what visitor points to are borrowed. ERROR_INPUT for a line that is no trial,
 * ERROR_USAGE for one of another configuration. */
struct needle_log *needle_log_open(const char *path, const char *config, const struct needle_visitor *visitor,
                                   struct error *err);
/* Take over the trials of another file, which is only read and need not exist: appended as they stand, synced and
 * handed to the visitor, but for those that failed and those that are there already. Errors as of needle_log_open.
 */
struct needle_gathered {
    int64_t trials, taken; /* that file's, without the failed ones; new here */
};
int needle_log_gather(struct needle_log *log, const char *path, struct needle_gathered *out, struct error *err);
/* The arithmetic of the first trial that was there, "f32" or "bf16"; "" where there were none. */
const char *needle_log_dtype(const struct needle_log *log);
int needle_log_add(struct needle_log *log, const struct needle_identity *identity,
                   const struct needle_record *record, struct error *err);
void needle_log_close(struct needle_log *log);

#endif
