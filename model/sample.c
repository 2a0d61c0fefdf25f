#include "model/sample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/num.h"

struct candidate {
    float logit;
    int32_t id;
};

struct sample_options sample_defaults(void)
{
    return (struct sample_options){.top_p = 1, .repeat_penalty = 1, .repeat_window = 256};
}

/* The finalizer of SplitMix64: every bit of the result depends on every bit of x. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

double sample_draw(uint64_t seed, uint64_t stream, uint64_t step)
{
    return (double)(mix(mix(mix(seed) ^ stream) ^ step) >> 11) * 0x1p-53;
}

/* The most likely token, or -1. */
static int32_t greedy(const float *logits, int64_t n_vocab, struct error *err)
{
    int64_t best = 0;
    for (int64_t i = 0; i < n_vocab; i++) {
        if (!(logits[i] < INFINITY))
            return error_set(err, ERROR_INPUT, "the model's logit of token %lld is %g", (long long)i, logits[i]);
        if (logits[i] > logits[best])
            best = i;
    }
    if (n_vocab < 1 || logits[best] == -INFINITY)
        return error_set(err, ERROR_INPUT, "the model gives no token any probability");
    return (int32_t)best;
}

/* Each token in the window once, however often it was written. */
static int penalize(const struct sample_options *options, float *logits, int64_t n_vocab,
                    const struct sample_past *past, struct error *err)
{
    int64_t n = i64_min(past->count, options->repeat_window);
    if (options->repeat_penalty == 1.0f || n == 0)
        return 0;
    bool *done = calloc((size_t)n_vocab, sizeof *done);
    if (!done)
        return error_errno(err, "sampling from %lld tokens", (long long)n_vocab);
    for (int64_t i = past->count - n; i < past->count; i++) {
        int32_t id = past->tokens[i];
        if (id < 0 || id >= n_vocab || done[id])
            continue;
        done[id] = true;
        logits[id] = logits[id] > 0 ? logits[id] / options->repeat_penalty : logits[id] * options->repeat_penalty;
    }
    free(done);
    return 0;
}

/* More likely first; the lower id first among equals, so that the order never depends on qsort. */
static int compare(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* How likely a token is against the most likely one. */
static double weight(const struct sample_options *options, float logit, float best)
{
    return exp(((double)logit - (double)best) / (double)options->temperature);
}

/* out = the tokens whose weight is e^least or more, in rising order of ids; *sum = their weights. Returns how many.
 */
static int64_t collect(const struct sample_options *options, const float *logits, int64_t n_vocab, float best,
                       double least, struct candidate *out, double *sum)
{
    double floor = (double)best + least * (double)options->temperature;
    int64_t count = 0;
    *sum = 0;
    for (int64_t i = 0; i < n_vocab; i++)
        if ((double)logits[i] >= floor) {
            out[count++] = (struct candidate){logits[i], (int32_t)i};
            *sum += weight(options, logits[i], best);
        }
    return count;
}

/* What cannot be drawn once in 10^17 draws is left out. */
static const double NEVER = -40;

/* out = what top-k and top-p leave, the most likely first. Only the likely end of the vocabulary is sorted: the
 * floor sinks until it holds enough. Returns how many. */
static int64_t keep_top(const struct sample_options *options, const float *logits, int64_t n_vocab, float best,
                        struct candidate *out)
{
    double total, sum, least = NEVER / 8;
    int64_t count = collect(options, logits, n_vocab, best, NEVER, out, &total), kept = 0;
    if (options->top_k == 0 && options->top_p >= 1.0f)
        return count;
    for (;; least = fmax(2 * least, NEVER)) {
        count = collect(options, logits, n_vocab, best, least, out, &sum);
        if (least <= NEVER || (options->top_k > 0 ? count >= options->top_k : sum >= options->top_p * total))
            break;
    }
    qsort(out, (size_t)count, sizeof *out, compare);
    if (options->top_k > 0 && count >= options->top_k) {
        count = options->top_k;
        total = 0;
        for (int64_t i = 0; i < count; i++)
            total += weight(options, out[i].logit, best);
    }
    for (sum = 0; kept < count && (kept == 0 || options->top_p >= 1.0f || sum < options->top_p * total); kept++)
        sum += weight(options, out[kept].logit, best);
    return kept;
}

/* Leave out what is less likely than min-p asks. Returns how many stay. */
static int64_t keep_min(const struct sample_options *options, float best, struct candidate *candidates,
                        int64_t count)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++)
        if (weight(options, candidates[i].logit, best) >= options->min_p)
            candidates[kept++] = candidates[i];
    return kept;
}

/* The candidate that `random`, in [0, 1), falls on. */
static int32_t draw(const struct sample_options *options, const struct candidate *candidates, int64_t count,
                    float best, double random)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += weight(options, candidates[i].logit, best);
    double left = random * sum;
    int64_t i = 0;
    while (i + 1 < count && (left -= weight(options, candidates[i].logit, best)) >= 0)
        i++;
    return candidates[i].id;
}

int32_t sample_token(const struct sample_options *options, float *logits, int64_t n_vocab,
                     const struct sample_past *past, struct error *err)
{
    if (penalize(options, logits, n_vocab, past, err) < 0)
        return -1;
    int32_t likeliest = greedy(logits, n_vocab, err);
    if (likeliest < 0 || options->temperature == 0.0f)
        return likeliest;
    struct candidate *candidates = malloc((size_t)n_vocab * sizeof *candidates);
    if (!candidates)
        return error_errno(err, "sampling from %lld tokens", (long long)n_vocab);
    float best = logits[likeliest];
    int64_t count = keep_top(options, logits, n_vocab, best, candidates);
    count = keep_min(options, best, candidates, count);
    double random = sample_draw(options->seed, past->stream, (uint64_t)past->count);
    int32_t id = draw(options, candidates, count, best, random);
    free(candidates);
    return id;
}
