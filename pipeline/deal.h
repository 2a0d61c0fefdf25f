/* Dealing: rank 0 hands jobs to ring groups, on demand, and takes their results back.
 *
 * The leader of a group (its rank 0) asks, works, answers and asks again. World rank 0 leads a group, too, and
 * serves the other leaders between the steps of its own work: dealer_poll is cheap and is called from deep inside
 * the forward pass. So no thread waits for messages, and no group waits longer than a tile of attention or a
 * publication takes.
 *
 * Rank 0: dealer_create, then dealer_poll often, dealer_stop once no work is left, dealer_free.
 * Other leaders: deal_ask, deal_answer, deal_report.
 */
#ifndef LONGHAUL_PIPELINE_DEAL_H
#define LONGHAUL_PIPELINE_DEAL_H

#include <stdbool.h>

#include "base/comm.h"
#include "base/error.h"
#include "pipeline/job.h"

/* Where jobs come from and results go to. take() fills *job (owned by the caller then) and returns true, or false
 * when there is nothing to do just now. give() may take arrays out of the result. */
struct deal_source {
    bool (*take)(void *context, struct job *job);
    int (*give)(void *context, struct job_result *result, struct error *err);
    void (*progress)(void *context, const struct job_progress *progress);
    void *context;
};

struct dealer;

/* The world is ring groups of `ring` neighbouring ranks each; leaders are world ranks 0, ring, 2 ring... */
struct dealer *dealer_create(const struct comm *world, int ring, const struct deal_source *source,
                             struct error *err);
void dealer_free(struct dealer *dealer);

/* Receive what has arrived, hand out what there is. */
int dealer_poll(struct dealer *dealer, struct error *err);

/* Tell every leader that it is over; all must have answered. */
int dealer_stop(struct dealer *dealer, struct error *err);

/* Leaders: wait for the next job (JOB_STOP ends); send a result; say how far the job is. */
int deal_ask(const struct comm *world, struct job *out, struct error *err);
int deal_answer(const struct comm *world, const struct job_result *result, struct error *err);
int deal_report(const struct comm *world, const struct job_progress *progress, struct error *err);

#endif
