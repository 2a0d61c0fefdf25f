#include <stdio.h>

#include "base/comm.h"
#include "base/log.h"
#include "pipeline/commands.h"
#include "pipeline/plan.h"
#include "pipeline/report.h"

/* A plan has no folder for a log: where more or less is asked for than by default it goes to stderr. */
static int open_log(const struct options *options, struct error *err)
{
    enum log_level level;
    if (log_level_parse(options->log_level, &level, err) != 0)
        return -1;
    return level == LOG_LEVEL_INFO ? 0 : log_to_stderr(level, err);
}

/* For the ranks that --ranks names, all on one node, or else for those that are running. */
static int print_plan(const struct options *options, const struct plan_around *running, struct error *err)
{
    struct opened_model opened;
    if (open_log(options, err) != 0 || opened_model_open(&opened, options, err) != 0)
        return -1;
    struct plan_around around = *running;
    if (options->ranks > 0) {
        around.ranks = (int)options->ranks;
        around.place = place_for_ranks(options, around.ranks);
    }
    struct corpus *corpus = plan_corpus(options, err);
    around.corpus = corpus;
    if (corpus) {
        report_corpus(corpus, stderr);
        corpus_log(corpus);
    }
    struct plan *plan = corpus ? plan_create(options, &opened, &around, err) : NULL;
    const int status = plan ? plan_print(plan, stdout, err) : -1;
    plan_free(plan);
    corpus_free(corpus);
    opened_model_close(&opened);
    return status;
}

int command_plan(const struct options *options, struct error *err)
{
    struct comm world, node = {.mpi = MPI_COMM_NULL};
    if (comm_init(&world, err) != 0)
        return -1;
    int status = comm_node(&world, &node, err);
    struct plan_around running = {.ranks = world.size};
    if (status == 0)
        status = place_survey(options, &world, &node, &running.place, err);
    if (status == 0 && world.rank == 0)
        status = print_plan(options, &running, err);
    comm_free(&node);
    log_close();
    comm_finish(&world);
    return status;
}
