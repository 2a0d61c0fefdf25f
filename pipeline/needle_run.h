/* A needle run on rank 0: it makes the trials of a grid, hands them out as jobs and writes down how they end.
 *
 * needle_run_create over a grid; needle_run_note for each trial that was there before; needle_run_open with the log
 * and the meter; then the session works on needle_run_source. Scores are there at any time.
 */
#ifndef LONGHAUL_PIPELINE_NEEDLE_RUN_H
#define LONGHAUL_PIPELINE_NEEDLE_RUN_H

#include "base/error.h"
#include "base/num.h"
#include "pipeline/meter.h"
#include "pipeline/needle_grid.h"
#include "pipeline/needle_log.h"
#include "pipeline/session.h"

struct needle_run;

/* All borrowed. */
struct needle_run_options {
    const struct needle_grid *grid;
    const struct needle_material *material;
    const struct tokenizer *tokenizer;
    const char *policy[NEEDLE_SETTINGS], *positions[NEEDLE_SETTINGS]; /* in effect */
};

struct needle_run *needle_run_create(const struct needle_run_options *options, struct error *err);
void needle_run_free(struct needle_run *run);

/* A trial of an earlier run; one that is not of the grid is passed over. As the log's visitor wants it. */
void needle_run_note(void *run, const struct needle_record *record);

enum { NEEDLE_DTYPES = DTYPE_BF16 + 1 };

/* Trials of the grid, and those of them that are done and that failed. */
struct needle_counts {
    int64_t trials, done, failed;
    int64_t longest[NEEDLE_SETTINGS];  /* length left to do under a setting; 0: none */
    int64_t tokens_left, answers_left; /* tokens to be read, and written at most */
    int64_t done_in[NEEDLE_DTYPES];    /* of those done, by enum dtype */
};
struct needle_counts needle_run_counts(const struct needle_run *run);

/* From now on trials are handed out; all borrowed. */
void needle_run_open(struct needle_run *run, struct needle_log *log, const struct needle_identity *identity,
                     struct meter *meter);

/* The run's jobs, those of the longest prompts first. */
struct session_source needle_run_source(struct needle_run *run);

/* The mean score of the trials done at places that agree with `place` where it is not -1; NAN: there are none. */
double needle_run_mean(const struct needle_run *run, const struct needle_place *place);

#endif
