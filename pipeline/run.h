/* A run on rank 0: it takes documents through their jobs and puts what comes back into the results.
 *
 * run_create over a plan and an open store; run_take and run_give are what the dealer and rank 0's own group call;
 * run_over once nothing is left; run_close publishes the rest. Each document is durable soon after it is done.
 */
#ifndef LONGHAUL_PIPELINE_RUN_H
#define LONGHAUL_PIPELINE_RUN_H

#include <stdbool.h>

#include "base/error.h"
#include "io/results.h"
#include "pipeline/job.h"
#include "pipeline/meter.h"
#include "pipeline/plan.h"

struct run;

struct run *run_create(struct plan *plan, struct results *results, struct meter *meter, struct error *err);
void run_free(struct run *run);

/* The next job, the costliest that is ready; false when there is none just now. */
bool run_take(struct run *run, struct job *out);

/* Take a job's result in. What is wrong with one document ends that document; -1: the run cannot go on. */
int run_give(struct run *run, struct job_result *result, struct error *err);

/* What a group says on the way. */
void run_progress(struct run *run, const struct job_progress *progress);

/* -1 when a job could not be made for lack of memory: the run cannot go on. */
int run_check(const struct run *run, struct error *err);

/* No document is open any more. */
bool run_over(const struct run *run);

/* Hand out nothing more: what is in the groups' hands is finished, then the run is over. */
void run_stop(struct run *run);

/* Publish what is not published yet. */
int run_publish(struct run *run, struct error *err);

/* Documents that failed in this run, and those left undone because it was stopped. */
int64_t run_failed(const struct run *run);
int64_t run_undone(const struct run *run);

#endif
