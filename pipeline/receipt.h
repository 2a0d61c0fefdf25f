/* The arithmetic of a compression receipt: what it costs to read a text under one policy rather than another, the
 * reference.
 *
 * Of each prediction the loss, log p_reference(token) - log p(token) in nats: above 0 where the policy did worse.
 * At some probe positions the divergence of the whole distributions, KL(reference || policy) = sum over the
 * vocabulary of p_reference (log p_reference - log p), which no token's luck can hide. And the bytes of keys and
 * values that either memory held. Plain data throughout: a receipt can be sent to another rank as it is.
 */
#ifndef LONGHAUL_PIPELINE_RECEIPT_H
#define LONGHAUL_PIPELINE_RECEIPT_H

#include <stdint.h>

/* Probes of one sequence, evenly spread over it, or over the part of it where anything can be lost. */
enum { RECEIPT_PROBES = 64 };

/* Positions are those of the tokens predicted. */
struct receipt_loss {
    int64_t count;
    double nll_sum, reference_nll_sum; /* of -logprob */
    double worst;                      /* the largest loss of a token, and where; count 0: no meaning */
    int64_t worst_position;
};

struct receipt_divergence {
    int64_t count;
    double sum, worst;
    int64_t worst_position;
};

/* What both memories held at their fullest, on all ranks of the ring together, once `tokens` had been read. */
struct receipt_memory {
    int64_t tokens, bytes, reference_bytes;
};

struct receipt {
    struct receipt_loss loss;
    struct receipt_divergence divergence;
    struct receipt_memory memory;
};

/* Count one prediction in. */
void receipt_add_loss(struct receipt_loss *loss, double logprob, double reference, int64_t position);

/* Both settings' logits [vocab] for one prediction, and the token that came. */
struct receipt_probe {
    const float *logits, *reference;
    int64_t vocab;
    int32_t token;
    int64_t position;
};

/* Count a probe in: its divergence, and its loss. */
void receipt_add_probe(struct receipt *receipt, const struct receipt_probe *probe);

/* The position, 1 .. n_tokens - 1, of the token that probe k of `probes` predicts; rising in k. probes is at most
 * n_tokens - 1. */
int64_t receipt_probe_position(int64_t k, int64_t probes, int64_t n_tokens);

/* Count a receipt of one more chunk in, whose positions begin at `first`. The memory is that of the longest. */
void receipt_merge(struct receipt *into, const struct receipt *chunk, int64_t first);

/* Of one prediction or probe, on average; 0 where there is none. */
double receipt_mean_loss(const struct receipt_loss *loss);
double receipt_mean_divergence(const struct receipt_divergence *divergence);

#endif
