/* Linear layers on a GPU: y = x W^T + bias by cuBLASLt, for rows of many tokens; bf16 in, f32 sums and out.
 *
 * linear_cuda_open once; for each matrix linear_cuda_create and linear_cuda_load; then linear_cuda_apply;
 * linear_cuda_free; linear_cuda_close. A matrix is [n_out][n_in] in bf16 and may be several tensors stacked along
 * their outputs (q over k over v), which then cost one product. It is resident on the GPU, or kept by the host and
 * brought to a place that it shares with others, by linear_cuda_fetch before each use.
 *
 * All linears of a library share its workspace and what cuBLASLt has chosen for a shape: they are applied by one
 * thread, and queued in one stream at a time. They are loaded by any threads, different ones at the same time. How
 * cuBLASLt sums a row depends on how many rows there are: a row's last bits are not those that it has alone.
 */
#ifndef LONGHAUL_MODEL_LINEAR_CUDA_H
#define LONGHAUL_MODEL_LINEAR_CUDA_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include "base/device.h"
#include "base/error.h"
#include "model/linear.h"

enum { LINEAR_CUDA_ALIGN = 16 }; /* bytes, of x and y */

/* Bytes on the GPU of what all linears share. */
size_t linear_cuda_library_bytes(void);

/* cuBLASLt on the GPU that this thread works with, its workspace, and what it has chosen. Borrows the device.
 * ERROR_RESOURCE without memory for the workspace, ERROR_CLUSTER where cuBLASLt cannot be had. */
struct linear_cuda_library;
struct linear_cuda_library *linear_cuda_open(const struct device *device, struct error *err);
void linear_cuda_close(struct linear_cuda_library *library);

/* Bytes on the GPU of a matrix and of its bias. */
size_t linear_cuda_weight_bytes(const struct linear_shape *shape);
size_t linear_cuda_bias_bytes(const struct linear_shape *shape);

/* A linear layer, to be loaded. Borrows the library; the bias (of the host) is copied. `place`:
 * linear_cuda_weight_bytes on the GPU that it shares with others, the matrix being the host's, pinned; NULL: it is
 * resident. ERROR_USAGE for another dtype than bf16. */
struct linear_cuda;
struct linear_cuda *linear_cuda_create(struct linear_cuda_library *library, const struct linear_shape *shape,
                                       void *place, struct error *err);
void linear_cuda_free(struct linear_cuda *linear);

/* Fill the matrix with the rows of the n_parts tensors, one behind the other: together n_out rows of n_in. Serial;
 * it is there when the call returns. Takes some hundred rows in f32 of memory, and in bf16 of pinned memory.
 * ERROR_INPUT as linear_pack. */
int linear_cuda_load(struct linear_cuda *linear, const struct tensor *const *parts, int n_parts, struct error *err);

/* Queue the matrix's copy to its place, where it is not resident: what is there must be of no more use, and
 * applying it must wait for the copy. */
int linear_cuda_fetch(const struct linear_cuda *linear, cudaStream_t stream, struct error *err);

/* Its bias on the GPU, [n_out], borrowed; NULL where it has none. */
const float *linear_cuda_bias(const struct linear_cuda *linear);

/* Queue y = x W^T + bias for rows on the GPU, aligned to LINEAR_CUDA_ALIGN; y must not overlap x. */
int linear_cuda_apply(struct linear_cuda *linear, const struct linear_rows *rows, cudaStream_t stream,
                      struct error *err);

#endif
