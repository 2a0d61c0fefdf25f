/* A run on rank 0: it takes documents through their jobs and puts what comes back into the results.
 *
 * run_create over a plan and an open store; the session works on run_source; run_publish publishes the rest. Each
 * document is durable within seconds of its end, whatever else is under way.
 */
#ifndef LONGHAUL_PIPELINE_RUN_H
#define LONGHAUL_PIPELINE_RUN_H

#include "base/error.h"
#include "io/results.h"
#include "pipeline/meter.h"
#include "pipeline/plan.h"
#include "pipeline/session.h"

struct run;

struct run *run_create(struct plan *plan, struct results *results, struct meter *meter, struct error *err);
void run_free(struct run *run);

/* The run's jobs: the costliest that is ready first; what is wrong with one document ends that document; stopped it
 * hands out nothing more, what is in the groups' hands is finished, then it is over. */
struct session_source run_source(struct run *run);

/* Publish what is not published yet. */
int run_publish(struct run *run, struct error *err);

#endif
