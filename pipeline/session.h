/* A session: all ranks of a run from the start of MPI to its end, and the jobs that they carry through a model.
 * What the commands that compute have in common.
 *
 * Every rank calls, in this order: session_open (MPI, the model), session_start (the set-up that rank 0 has chosen,
 * logs, ring groups, engines), session_work (rank 0 deals out the jobs of a source, all work on them),
 * session_close. What rank 0 alone does in between goes through session_agree, so that an error of one rank is the
 * error of all. Until the engines stand, an error anywhere ends every rank quietly with that error; from
 * session_work on it ends the whole MPI job at once.
 */
#ifndef LONGHAUL_PIPELINE_SESSION_H
#define LONGHAUL_PIPELINE_SESSION_H

#include <stdbool.h>

#include "base/comm.h"
#include "base/error.h"
#include "pipeline/deal.h"
#include "pipeline/engine.h"
#include "pipeline/opened_model.h"
#include "pipeline/options.h"
#include "pipeline/setup.h"

/* Where rank 0 has its jobs from, and when there are no more. All functions get jobs.context. */
struct session_source {
    struct deal_source jobs;
    bool (*over)(void *context);                    /* no job is left or under way */
    int (*check)(void *context, struct error *err); /* called often: what is due; -1: the run cannot go on */
    void (*stop)(void *context);                    /* hand out nothing more; called once or more often */
};

struct session {
    const struct options *options; /* borrowed */
    struct comm world, node, group;
    struct place place;
    struct opened_model opened;
    char *hosts; /* rank 0: all ranks' hosts, each once, by ',' */
    struct setup setup;
    struct policy_spec *policies; /* [n_settings][layers], as rank 0 has them */
    struct engine *engine;        /* NULL when there is nothing to compute: no weights are packed for that */
    struct dealer *dealer;        /* rank 0, during session_work */
    const struct session_source *source;
};

/* Start MPI, heed SIGTERM and SIGUSR1, open --model on every rank. Close it also after a failure. */
int session_open(struct session *session, const struct options *options, struct error *err);

/* Every rank says whether it has failed (status not 0, *err says why); if any has, -1 with the error of the lowest
 * such rank on every rank. */
int session_agree(const struct session *session, int status, struct error *err);

/* Send session->setup and the policies of its settings, [n_settings][layers], from rank 0 to all, open the logs in
 * --output, form the ring groups, build the engines. Of other ranks policies is not looked at. */
int session_start(struct session *session, const struct policy_spec *policies, struct error *err);

/* Work until the source (rank 0's; NULL elsewhere) is over. Does not return after an error: the MPI job is over. */
void session_work(struct session *session, const struct session_source *source);

/* What rank 0 does by itself after the work: an error there ends the MPI job, too. */
_Noreturn void session_abort(const struct error *err);

/* End MPI. On ranks other than 0 *err loses its text: rank 0 tells the user, once. */
void session_close(struct session *session, struct error *err);

#endif
