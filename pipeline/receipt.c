#include "pipeline/receipt.h"

#include <math.h>

void receipt_add_loss(struct receipt_loss *loss, double logprob, double reference, int64_t position)
{
    const double lost = reference - logprob;
    if (loss->count == 0 || lost > loss->worst) {
        loss->worst = lost;
        loss->worst_position = position;
    }
    loss->count++;
    loss->nll_sum -= logprob;
    loss->reference_nll_sum -= reference;
}

static void add_divergence(struct receipt_divergence *sum, double kl, int64_t position)
{
    if (sum->count == 0 || kl > sum->worst) {
        sum->worst = kl;
        sum->worst_position = position;
    }
    sum->count++;
    sum->sum += kl;
}

/* log(sum(exp(logits))) */
static double log_sum_exp(const float *logits, int64_t n)
{
    double most = logits[0], sum = 0;
    for (int64_t i = 1; i < n; i++)
        most = fmax(most, logits[i]);
    for (int64_t i = 0; i < n; i++)
        sum += exp(logits[i] - most);
    return most + log(sum);
}

void receipt_add_probe(struct receipt *receipt, const struct receipt_probe *probe)
{
    const double norm = log_sum_exp(probe->logits, probe->vocab);
    const double reference_norm = log_sum_exp(probe->reference, probe->vocab);
    double kl = 0;
    for (int64_t i = 0; i < probe->vocab; i++) {
        const double reference = probe->reference[i] - reference_norm, logprob = probe->logits[i] - norm;
        kl += exp(reference) * (reference - logprob);
    }
    /* below 0 by rounding alone; what is no number stays one */
    add_divergence(&receipt->divergence, kl < 0 ? 0 : kl, probe->position);
    receipt_add_loss(&receipt->loss, probe->logits[probe->token] - norm,
                     probe->reference[probe->token] - reference_norm, probe->position);
}

int64_t receipt_probe_position(int64_t k, int64_t probes, int64_t n_tokens)
{
    return 1 + (2 * k + 1) * (n_tokens - 1) / (2 * probes);
}

static void merge_losses(struct receipt_loss *into, const struct receipt_loss *chunk, int64_t first)
{
    if (chunk->count > 0 && (into->count == 0 || chunk->worst > into->worst)) {
        into->worst = chunk->worst;
        into->worst_position = first + chunk->worst_position;
    }
    into->count += chunk->count;
    into->nll_sum += chunk->nll_sum;
    into->reference_nll_sum += chunk->reference_nll_sum;
}

static void merge_divergences(struct receipt_divergence *into, const struct receipt_divergence *chunk,
                              int64_t first)
{
    if (chunk->count > 0 && (into->count == 0 || chunk->worst > into->worst)) {
        into->worst = chunk->worst;
        into->worst_position = first + chunk->worst_position;
    }
    into->count += chunk->count;
    into->sum += chunk->sum;
}

void receipt_merge(struct receipt *into, const struct receipt *chunk, int64_t first)
{
    merge_losses(&into->loss, &chunk->loss, first);
    merge_divergences(&into->divergence, &chunk->divergence, first);
    if (chunk->memory.tokens > into->memory.tokens)
        into->memory = chunk->memory;
}

double receipt_mean_loss(const struct receipt_loss *loss)
{
    return loss->count > 0 ? (loss->nll_sum - loss->reference_nll_sum) / (double)loss->count : 0;
}

double receipt_mean_divergence(const struct receipt_divergence *divergence)
{
    return divergence->count > 0 ? divergence->sum / (double)divergence->count : 0;
}
