#include "pipeline/advice.h"

#include <inttypes.h>

/* Times the trained length that dynamic NTK holds without training; and what its context is rounded up to, with
 * room for the instruction and the answer. */
enum { POSITIONS_HOLD = 2, CONTEXT_STEP = 1024 };

static bool is_chosen(const struct options *options)
{
    return options->strategy != STRATEGY_AUTO || options->policy || options->layers || options->context > 0 ||
           options->positions != POSITIONS_CHOICE_AUTO || options->against || options->truncate;
}

/* The longest document, and how many are beyond the context. */
static const struct plan_document *find_longest(const struct plan *plan, int64_t context, int64_t *beyond)
{
    const struct plan_document *longest = NULL;
    *beyond = 0;
    for (int64_t i = 0; i < plan->n_documents; i++) {
        const struct plan_document *document = &plan->documents[i];
        *beyond += document->work.n_tokens > context;
        if (!longest || document->work.n_tokens > longest->work.n_tokens)
            longest = document;
    }
    return longest;
}

void advice_print(const struct plan *plan, FILE *out)
{
    const int64_t context = plan->opened->model->context;
    int64_t beyond;
    const struct plan_document *longest = find_longest(plan, context, &beyond);
    if (beyond == 0 || is_chosen(plan->options) || plan->limits.context == PLAN_UNBOUNDED)
        return;
    const double times = (double)longest->work.n_tokens / (double)context;
    fprintf(out,
            "advice: %" PRId64 " documents are beyond the %" PRId64
            " tokens of the model, the longest %.1f times (%s), and are read in pieces as planned; "
            "--strategy whole reads them in one, with a far memory",
            beyond, context, times, longest->id);
    const int64_t enough = i64_round_up(longest->work.n_tokens + CONTEXT_STEP, CONTEXT_STEP);
    const bool stretched = plan->opened->model->file_positions.kind != POSITION_NONE; /* by the file, already */
    if (!stretched && enough <= POSITIONS_HOLD * context)
        fprintf(out, "; so does --positions dynamic --context %" PRId64 ", with all of it in view", enough);
    fputc('\n', out);
}
