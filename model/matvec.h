/* A matrix times one vector, read straight from the quantised rows of the weights file: the linear layers of a
 * token that is decoded. One weight is read once and used once, so speed is that of memory where the unpacking
 * keeps up; the numbers are f32 throughout, weights and activations alike, as exact as unpacked f32 weights.
 *
 * The row kernels are chosen at run time by what the CPU has: AVX-512, AVX2, or plain C. Any thread may call.
 */
#ifndef LONGHAUL_MODEL_MATVEC_H
#define LONGHAUL_MODEL_MATVEC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/quant.h"
#include "base/tensor.h"

/* y[row] = sum over i of w[row][i] * x[i], for first_row <= row < end_row; the rest of y is left alone.
 * x [w->dims[0]]; the rows are those of tensor_rows. The caller shares out the rows. */
void matvec_rows(const struct tensor *w, const float *x, float *y, int64_t first_row, int64_t end_row);

/* The sum of w[i] * x[i] over a row of n elements, n a multiple of the type's block. */
typedef float matvec_dot(const uint8_t *row, const float *x, int64_t n);

/* One variant. A type without a `dot` of its own is unpacked by base/quant.h, then summed by `block_dot`:
 * the sum over one block of `elements` weights in groups of `group` (16 or 32). The plain types always have one. */
struct matvec_kernel {
    const char *name; /* "avx512", "avx2", "c" */
    bool (*supported)(void);
    matvec_dot *dot[TENSOR_TYPE_COUNT];
    float (*block_dot)(const struct quant_block *block, int elements, int group, const float *x);
};

/* All variants, best first; the last one runs everywhere. *n_out of them; tests and measurements only. */
const struct matvec_kernel *const *matvec_kernels(int *n_out);

/* One row by one variant. */
float matvec_row(const struct matvec_kernel *kernel, enum tensor_type type, const void *row, const float *x,
                 int64_t n);

/* Ask for the bytes that a pass over the weights will reach some microseconds after these: the prefetcher of the
 * CPU alone leaves a third of the speed. Harmless where they lie behind the end of the mapping. */
enum { MATVEC_AHEAD_BYTES = 4096, MATVEC_LINE_BYTES = 64 };
static inline void matvec_fetch_ahead(const uint8_t *row, int bytes)
{
    for (int i = 0; i < bytes; i += MATVEC_LINE_BYTES)
        __builtin_prefetch((const void *)((uintptr_t)row + MATVEC_AHEAD_BYTES + (uintptr_t)i), 0, 3);
}

extern const struct matvec_kernel matvec_kernel_c, matvec_kernel_avx2, matvec_kernel_avx512;

#endif
