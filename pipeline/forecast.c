#include "pipeline/forecast.h"

#include "pipeline/layers.h"

static struct probe_keys keys_of(const struct plan *plan, int setting, int64_t n)
{
    const int layers = plan->opened->model->shape.layers;
    const struct policy_spec *policies = plan_policies(plan, setting);
    return (struct probe_keys){layers_keys_seen(policies, layers, n), layers_keys_searched(policies, layers, n)};
}

/* A sequence of n tokens, and an answer if there is to be one. */
static double sequence_seconds(const struct plan *plan, const struct probe_rates *rates, int setting, int64_t n)
{
    const int64_t written = plan->task->job == JOB_GENERATE ? plan->limits.max_new : 0;
    const struct probe_keys before = keys_of(plan, setting, n), after = keys_of(plan, setting, n + written);
    const double each = (double)i64_max(1, written);
    const struct probe_work work = {
        .model = plan->opened->model,
        .read = n,
        .keys = before,
        .scored = written > 0 ? 0 : n,
        .written = written,
        .kept = {(after.seen - before.seen) / each, (after.searched - before.searched) / each},
    };
    return probe_seconds(rates, &work);
}

/* A document, run one node after the other; reductions are counted as one more answer. */
static double document_seconds(const struct plan *plan, const struct probe_rates *rates, const struct work *work)
{
    double seconds = 0;
    for (int64_t i = 0; i < work->chunks.count; i++) {
        const int64_t n = work->chunks.items[i].end_token - work->chunks.items[i].first_token;
        seconds += sequence_seconds(plan, rates, work->setting, n);
        if (plan->limits.compares)
            seconds += sequence_seconds(plan, rates, plan->setup.reference, n);
    }
    if (plan->task->job == JOB_GENERATE && work->chunks.count > 1)
        seconds += sequence_seconds(plan, rates, 0, plan->limits.max_new);
    return seconds;
}

/* The beginning of a document, read under its setting and the reference; the few logits that are compared aside. */
static double receipt_seconds(const struct plan *plan, const struct probe_rates *rates, const struct work *work)
{
    const int settings[] = {work->setting, plan->setup.reference};
    double seconds = 0;
    for (int i = 0; i < 2 && work->receipt_tokens > 0; i++) {
        const struct probe_work reading = {.model = plan->opened->model,
                                           .read = work->receipt_tokens,
                                           .keys = keys_of(plan, settings[i], work->receipt_tokens)};
        seconds += probe_seconds(rates, &reading);
    }
    return seconds;
}

double forecast_seconds(const struct plan *plan, const struct probe_rates *rates, const struct work *work)
{
    return document_seconds(plan, rates, work) + receipt_seconds(plan, rates, work);
}

/* Operations that n tokens of a text take. Each counts the same, wherever it is done: near enough to compare early
 * tokens with late ones. */
static double operations(const struct plan *plan, int setting, int64_t n)
{
    const struct model *model = plan->opened->model;
    const struct probe_rates even = {.linear = 1, .attention = 1, .search = 0.5 / model->shape.dim, .decode = 1};
    const struct probe_work reading = {.model = model,
                                       .read = n,
                                       .keys = keys_of(plan, setting, n),
                                       .scored = plan->task->job == JOB_GENERATE ? 0 : n};
    return probe_seconds(&even, &reading);
}

double forecast_extra(const struct plan *plan, int setting, int64_t n)
{
    n -= n % 2; /* or two halves would be a token less */
    double whole = operations(plan, setting, n), half = operations(plan, setting, n / 2);
    if (plan->limits.compares) {
        whole += operations(plan, plan->setup.reference, n);
        half += operations(plan, plan->setup.reference, n / 2);
    }
    /* Of what rises with the square of n two halves take half. */
    const double rising = 2 * (whole - 2 * half), steady = whole - rising;
    return rising > 0 && steady > 0 ? (double)n * rising / steady : 0;
}
