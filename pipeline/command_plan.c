#include <stdio.h>

#include "base/log.h"
#include "pipeline/commands.h"
#include "pipeline/plan.h"

int command_plan(const struct options *options, struct error *err)
{
    struct opened_model opened;
    enum log_level level;
    if (log_level_parse(options->log_level, &level, err) != 0 ||
        opened_model_open(&opened, options->model, err) != 0)
        return -1;
    /* --ring says for how many ranks to plan; they are taken to be on this node. */
    const int ranks = options->ring > 0 ? (int)options->ring : 1;
    struct corpus *corpus = plan_corpus(options, err);
    const struct plan_around around = {ranks, ranks, corpus, NULL};
    struct plan *plan = corpus ? plan_create(options, &opened, &around, err) : NULL;
    const int status = plan ? plan_print(plan, stdout, err) : -1;
    plan_free(plan);
    corpus_free(corpus);
    opened_model_close(&opened);
    return status;
}
