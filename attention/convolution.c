#include "attention/convolution.h"

#include "attention/kernel.h"
#include "attention/rows.h"

void convolution_apply(const struct convolution *convolution, enum dtype dtype, const void *rows,
                       const float *offset, float *out)
{
    const int dim = convolution->dim;
    for (int e = 0; e < dim; e++)
        out[e] = convolution->bias[e] - (offset ? offset[e] : 0);
    for (int j = 0; j < convolution->rate; j++) {
        float row[ATTN_MAX_DIM];
        row_to_f32(dtype, (const char *)rows + (size_t)(j * dim) * dtype_size(dtype), row, dim);
        for (int i = 0; i < dim && offset; i++)
            row[i] += offset[i];
        for (int e = 0; e < dim; e++) {
            const float *weights = convolution->weights + (e * convolution->rate + j) * dim;
            for (int i = 0; i < dim; i++)
                out[e] += weights[i] * row[i];
        }
    }
}
