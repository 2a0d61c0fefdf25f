/* Progress: what the user sees of a run while it goes on. Rank 0 only.
 *
 * progress_defaults and progress_create; progress_update with the first counts before the work begins and then as
 * often as is convenient; progress_document_done at the end of each document; progress_note for a line that stays;
 * progress_free. On a terminal there is one line, rewritten at most five times a second, and above it one for each
 * document (not trial) whose outcome is more than "ok"; elsewhere a line at most every ten seconds and one at each
 * document's end:
 *
 *   prefill  document 3/12  tokens 45.2k/1.20M  812/s  4m10s left  books/moby-dick.txt
 *
 * All rates are measured: reading (prefill) and writing (decode) apart, over about the last five minutes, from the
 * changes between updates. The time left is the work left in each over its rate; ">" stands before it as long as
 * one that has work left has not been measured. Where later tokens of a text take longer to read than the first, it
 * counts them for more.
 */
#ifndef LONGHAUL_PIPELINE_PROGRESS_H
#define LONGHAUL_PIPELINE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

enum progress_phase { PROGRESS_PREFILL, PROGRESS_DECODE, PROGRESS_PHASES };

struct progress_options {
    bool live;                      /* one line that is rewritten */
    int columns;                    /* of the terminal */
    double (*clock)(void *context); /* seconds from any start */
    void *clock_context;
    const char *unit; /* what is counted; NULL: "document" */
};

/* What there is to do; a run that goes on counts what it did before as done. */
struct progress_totals {
    int64_t documents;
    int64_t tokens[PROGRESS_PHASES]; /* the best that is known */
    double extra;                    /* what later tokens take longer to read than first ones, in tokens */
};

struct progress_state {
    enum progress_phase phase; /* what is going on now, for the most part */
    const char *document;      /* its id; borrowed during the call */
    int64_t documents_done;
    int64_t tokens_done[PROGRESS_PHASES];
    double extra_done; /* of the totals' */
};

struct progress;

/* Live if `out` is a terminal, as wide as that is, with the monotonic clock of the system. */
void progress_defaults(struct progress_options *options, FILE *out);

/* `out` is borrowed. ERROR_RESOURCE. */
struct progress *progress_create(FILE *out, const struct progress_options *options,
                                 const struct progress_totals *totals, struct error *err);

/* More is known about what there is to do. */
void progress_set_totals(struct progress *progress, const struct progress_totals *totals);

void progress_update(struct progress *progress, const struct progress_state *state);

/* `document` has ended; outcome is a word or two: "ok", "failed: ...". One more is done, as the next update says
 * too. */
void progress_document_done(struct progress *progress, const char *document, const char *outcome);

/* A line that stays, above the live one. Without newline; control characters in it become '?'. */
void progress_note(struct progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Takes the live line away. */
void progress_free(struct progress *progress);

#endif
