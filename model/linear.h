/* Linear layers for prefill: y = x W^T + bias by blocked matrix products (oneDNN), for rows of many tokens.
 *
 * The packed form of a matrix lies in memory that the caller provides, so that all matrices of a model can share
 * one block, and all ranks of a node that block: linear_packed_bytes to measure; linear_attach on every rank;
 * linear_pack on one of them, before the first linear_apply on any; linear_free. The memory must outlive the
 * linear. A packed matrix holds no pointers, but its layout is that of this CPU's instructions and this oneDNN:
 * never write it to disk.
 *
 * A matrix may be several tensors stacked along their outputs (q over k over v), which then cost one product.
 * oneDNN is used as a serial kernel: each call works on the thread that makes it, which is set to use no OpenMP
 * team. Different threads may apply one linear at the same time, each with its own scratch.
 */
#ifndef LONGHAUL_MODEL_LINEAR_H
#define LONGHAUL_MODEL_LINEAR_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/num.h"
#include "base/tensor.h"

enum {
    LINEAR_TILE_ROWS = 192, /* a good size for a work item: its x and y stay in a core's L2 cache */
    LINEAR_LEAST_ROWS = 16, /* fewer are padded, in scratch */
    LINEAR_ALIGN = 64       /* bytes, of packed memory and of scratch */
};

struct linear_shape {
    int64_t n_in, n_out;
    enum dtype dtype;  /* of x and of the packed matrix; products are summed in f32 */
    const float *bias; /* [n_out] or NULL; borrowed, must outlive the linear */
};

struct linear;

/* *out = the bytes of the packed matrix, a multiple of LINEAR_ALIGN. ERROR_USAGE where this CPU has no product of
 * that dtype. */
int linear_packed_bytes(const struct linear_shape *shape, size_t *out, struct error *err);

/* The linear layer over `packed`, which holds linear_packed_bytes() bytes: packed already, or to be packed. */
struct linear *linear_attach(const struct linear_shape *shape, void *packed, struct error *err);
void linear_free(struct linear *linear);

/* Fill the packed memory with the rows of the n_parts tensors, one behind the other: together n_out rows of n_in.
 * Serial; different linears may be packed at the same time. Needs little memory of its own (some hundred rows in
 * f32). ERROR_INPUT names the tensor and the row of a weight that is not finite in the dtype. */
int linear_pack(const struct linear *linear, const struct tensor *const *parts, int n_parts, struct error *err);

/* Bytes of scratch that linear_apply needs, aligned to LINEAR_ALIGN; one for each thread. */
size_t linear_scratch_bytes(const struct linear *linear);

/* Some rows on their way through a linear layer. x and y must not overlap. */
struct linear_rows {
    const void *x; /* [rows][n_in] in the linear's dtype */
    float *y;      /* [rows][n_out] */
    int64_t rows;
};

/* y = x W^T + bias. The result of a row is the same, bit for bit, however many rows there are and wherever among
 * them it stands: all sizes are made of three fixed ones, the last rows padded. */
int linear_apply(const struct linear *linear, const struct linear_rows *rows, void *scratch, struct error *err);

#endif
