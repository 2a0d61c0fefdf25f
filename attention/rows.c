#include "attention/rows.h"

void row_from_f32(enum dtype dtype, const float *in, void *out, int64_t n)
{
    if (dtype == DTYPE_F32) {
        memcpy(out, in, (size_t)n * sizeof *in);
        return;
    }
    bf16 *rounded = out;
    for (int64_t i = 0; i < n; i++)
        rounded[i] = bf16_from_f32(in[i]);
}

void row_to_f32(enum dtype dtype, const void *in, float *out, int64_t n)
{
    if (dtype == DTYPE_F32) {
        memcpy(out, in, (size_t)n * sizeof *out);
        return;
    }
    const bf16 *kept = in;
    for (int64_t i = 0; i < n; i++)
        out[i] = bf16_to_f32(kept[i]);
}

void key_to_f32(enum dtype dtype, const void *in, const float *offset, float *out, int dim)
{
    row_to_f32(dtype, in, out, dim);
    for (int e = 0; offset && e < dim; e++)
        out[e] += offset[e];
}
