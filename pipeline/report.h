/* What a run tells its user of its documents: before, with each that ends, and once it is over. */
#ifndef LONGHAUL_PIPELINE_REPORT_H
#define LONGHAUL_PIPELINE_REPORT_H

#include <stdio.h>

#include "pipeline/plan.h"

/* The line before a model of so many bytes is hashed, which can take minutes. */
void report_hashing(const char *model, int64_t bytes, FILE *out);

/* The line before work begins on GPUs that share chunks: `by` what keys travel, slower where not by NCCL. */
void report_ring(int ring, const char *by, FILE *out);

/* The line before they are read: how many files, and how many were left out. */
void report_corpus(const struct corpus *corpus, FILE *out);

/* The line that closes a document: "ok", "failed: why"; whether its answer was cut off; what its policies have
 * cost, where that was measured; what they have let go. The document's work is still there. */
enum { REPORT_OUTCOME = 512 };
void report_outcome(const struct plan_document *document, char *out, size_t size);

/* All documents of a run that is over, by how they stand: PENDING are undone. */
struct report_counts {
    int64_t of[RESULT_SKIPPED + 1]; /* by enum result_status */
    int64_t failed_before;          /* of those that failed: in an earlier run, and not taken again */
    int64_t kept;                   /* of those that failed: not read, but with the answer of an earlier run */
};
struct report_counts report_count(const struct plan *plan);

/* "3 documents: 2 ok, 1 skipped". */
enum { REPORT_CLOSING = 256 };
void report_closing(const struct report_counts *counts, char *out, size_t size);

/* The documents that this run has scored: a line each, with one for each bucket below it where there are several.
 * ERROR_IO or ERROR_RESOURCE where `out` takes no more. */
int report_scores(const struct plan *plan, FILE *out, struct error *err);

#endif
