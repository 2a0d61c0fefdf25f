/* The operations between the matrices of a layer, on rows of f32: norms, gate, sums, lookups, log-softmax.
 *
 * Nothing to create; every function is serial and may be called from any thread. Rows lie one behind the other.
 * `out` of type void * is in the dtype given, ready to be the input of a linear layer. Sums are taken in the same
 * order for every number of rows and threads, so a row's result does not depend on its neighbours.
 */
#ifndef LONGHAUL_MODEL_OPS_H
#define LONGHAUL_MODEL_OPS_H

#include <stdint.h>

#include "base/num.h"
#include "base/tensor.h"

/* out [rows][n] = x / sqrt(mean(x^2) + eps) * weight, the mean over a row (Zhang and Sennrich 2019). In f32, out
 * may be x. */
struct rms_norm {
    const float *weight; /* [n] */
    int64_t n;
    float eps;
};
void ops_rms_norm(const struct rms_norm *norm, const float *x, void *out, enum dtype dtype, int64_t rows);

/* The gate of a feed-forward layer, g / (1 + e^-h):
 *   silu       h = g
 *   gelu_tanh  h = sqrt(8/pi) (g + 0.044715 g^3), which is g/2 (1 + tanh(h/2)) (Hendrycks and Gimpel 2016)
 * Relative error in f32 below 4e-7 for |h| <= 80 with silu; gelu_tanh's is that of h as well, below 2e-6 for g >=
 * -3 and absolutely below 1e-8 under it. Gates beyond that saturate. */
enum activation { ACTIVATION_SILU, ACTIVATION_GELU_TANH };

/* out [rows][ffn] = activation(gate) * up; a row of gate_up [rows][2 ffn] holds the gates, then the ups (Shazeer
 * 2020). */
struct ops_gate {
    enum activation activation;
    int64_t ffn;
};
void ops_gate(const struct ops_gate *gate, const float *gate_up, void *out, enum dtype dtype, int64_t rows);
/* The same for n elements whose gates and ups lie apart: up [n] *= activation(gates [n]). */
void ops_gate_apart(enum activation activation, const float *gates, float *up, int64_t n);

/* x [n] += y [n] */
void ops_add(float *x, const float *y, int64_t n);

/* out [n] = x [n], rounded to dtype. */
void ops_store(const float *x, void *out, enum dtype dtype, int64_t n);

/* out [n][width] = the rows of the embedding [vocab][width] that ids [n] name, times scale; 0 <= id < vocab. */
void ops_embed(const struct tensor *embedding, const int32_t *ids, int64_t n, float scale, float *out);

/* What logits [n] say: log_sum_exp = log(sum e^logit), the id of the largest logit (the lowest such id), and
 * logprob = logits[id] - log_sum_exp, all natural. A NaN among the logits makes log_sum_exp a NaN. */
struct ops_logprob {
    float log_sum_exp;
    float logprob;
    int32_t top;
};
struct ops_logprob ops_log_softmax(const float *logits, int64_t n, int64_t id);

#endif
