/* The rows of a linear layer's tensors as numbers, one panel behind the other: what is read when it is packed for a
 * CPU or copied to a GPU. unpack_begin, then unpack_rows until all n_out rows are out. */
#ifndef LONGHAUL_MODEL_UNPACK_H
#define LONGHAUL_MODEL_UNPACK_H

#include <stdint.h>

#include "base/error.h"
#include "base/num.h"
#include "base/tensor.h"

struct unpack_shape {
    int64_t n_in, n_out;
    enum dtype dtype; /* in which every weight is to be finite */
};

/* Where the next row comes from. */
struct unpack {
    struct unpack_shape shape;
    const struct tensor *const *part; /* borrowed */
    int64_t row;
};

/* At the first row of n_parts tensors stacked along their outputs. ERROR_INPUT where they are not n_out rows of
 * n_in together. */
int unpack_begin(struct unpack *unpack, const struct unpack_shape *shape, const struct tensor *const *parts,
                 int n_parts, struct error *err);

/* out [rows][n_in] = the next rows. ERROR_INPUT names the tensor and the row of a weight that is not finite in the
 * dtype. */
int unpack_rows(struct unpack *unpack, int64_t rows, float *out, struct error *err);

#endif
