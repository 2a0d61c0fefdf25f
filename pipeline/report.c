#include "pipeline/report.h"

#include <inttypes.h>

static void print_score(const char *id, const struct plan_score *score, FILE *out)
{
    fprintf(out, "%s: perplexity %.6f over %" PRId64 " tokens\n", id, score->perplexity, score->count);
    for (int64_t b = 0; b < score->n_buckets && score->n_buckets > 1; b++) {
        const struct result_bucket *bucket = &score->buckets[b];
        fprintf(out, "  positions %9" PRId64 " - %9" PRId64 ": perplexity %.4f\n", bucket->first_position,
                bucket->end_position - 1, bucket->perplexity);
    }
}

void report_scores(const struct plan *plan, FILE *out)
{
    for (int64_t i = 0; i < plan->n_documents; i++)
        if (plan->documents[i].score.count > 0)
            print_score(plan->documents[i].id, &plan->documents[i].score, out);
}
