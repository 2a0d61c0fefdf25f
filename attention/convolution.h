/* A trained compression of keys and values: one slot out of `rate` consecutive tokens by a convolution whose kernel
 * and stride are `rate` (Rae et al. 2019, arXiv:1911.05507, section 3.1), alike in all kv heads of a layer:
 *
 *     slot[e] = bias[e] + sum over j < rate and i < dim of weights[e][j][i] row_j[i]
 *
 * Rows are raw keys or values; a key is taken with its offset, and kept, as all keys are, without it.
 */
#ifndef LONGHAUL_ATTENTION_CONVOLUTION_H
#define LONGHAUL_ATTENTION_CONVOLUTION_H

#include <stddef.h>

#include "base/num.h"

struct convolution {
    int rate, dim;        /* rate 0: the model has none */
    const float *weights; /* [dim][rate][dim] */
    const float *bias;    /* [dim] */
};

/* A layer's. */
struct convolutions {
    struct convolution keys, values;
};

/* out [dim] := the slot of rows [rate][dim] of the dtype; offset [dim] is that of the rows and of out, or NULL. */
void convolution_apply(const struct convolution *convolution, enum dtype dtype, const void *rows,
                       const float *offset, float *out);

#endif
