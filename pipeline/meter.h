/* The meter: how much of a run's work there is, is under way and is done, in tokens read and written, for the
 * progress display. Rank 0 only. What is not known yet (reductions, where an answer ends) is corrected as it shows.
 */
#ifndef LONGHAUL_PIPELINE_METER_H
#define LONGHAUL_PIPELINE_METER_H

#include <stdint.h>

#include "base/error.h"
#include "pipeline/job.h"
#include "pipeline/progress.h"

struct meter;

/* groups: jobs that can be under way at once. documents_done of totals->documents were done before. `progress` is
 * borrowed. */
struct meter *meter_create(struct progress *progress, int groups, const struct progress_totals *totals,
                           int64_t documents_done, struct error *err);
void meter_free(struct meter *meter);

/* A job begins: `reads` tokens of material, at most `writes` of answer. `foreseen`: the totals count it already. */
struct meter_job {
    int64_t id, reads, writes;
    double extra; /* what its later tokens take longer to read than its first, in tokens */
    bool foreseen;
    const char *document; /* borrowed until the job ends */
};
void meter_begin(struct meter *meter, const struct meter_job *job);
void meter_progress(struct meter *meter, const struct job_progress *progress);
/* A job ends after writing so many tokens. */
void meter_end(struct meter *meter, int64_t id, int64_t written);
void meter_document_done(struct meter *meter, const char *document, const char *outcome);

#endif
