/* A matrix times one vector on a GPU, read straight from quantised rows: what model/matvec.h does for a token that
 * is decoded. Weights and activations are f32 once they are unpacked, as there. */
#ifndef LONGHAUL_MODEL_MATVEC_CUDA_H
#define LONGHAUL_MODEL_MATVEC_CUDA_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/error.h"
#include "base/tensor.h"

enum { MATVEC_CUDA_ALIGN = 16 }; /* bytes, of the rows and of x */

/* A vector on its way through a matrix; all of it is the device's. */
struct matvec_cuda_vector {
    const float *x; /* [w->dims[0]] */
    float *y;       /* [tensor_rows(w)] */
};

/* Queue y[row] = sum over i of w[row][i] * x[i] for all rows. w->data: the rows as they lie in the file, copied to
 * the device; any type. ERROR_INTERNAL where rows or x are not aligned. */
int matvec_cuda(const struct tensor *w, const struct matvec_cuda_vector *vector, cudaStream_t stream,
                struct error *err);

#ifdef __cplusplus
}
#endif

#endif
