/* Tensors as they lie in a weights file: types, sizes, and rows turned into numbers.
 *
 * A tensor has up to four dimensions, dims[0] the one whose elements are neighbours (the row length), as GGUF
 * counts them: a matrix that maps n inputs to m outputs has dims {n, m}, m rows of n elements. A quantised
 * type packs each row in blocks of block_elements; a row is a whole number of blocks.
 * The block layouts are ggml's (ggml/src/ggml-common.h), which is what GGUF files hold.
 */
#ifndef LONGHAUL_BASE_TENSOR_H
#define LONGHAUL_BASE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

enum tensor_type {
    TENSOR_F32,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_Q4_0,
    TENSOR_Q4_1,
    TENSOR_Q5_0,
    TENSOR_Q5_1,
    TENSOR_Q8_0,
    TENSOR_Q2_K,
    TENSOR_Q3_K,
    TENSOR_Q4_K,
    TENSOR_Q5_K,
    TENSOR_Q6_K,
    TENSOR_TYPE_COUNT
};

enum { TENSOR_MAX_DIMS = 4 };

struct tensor {
    const char *name; /* borrowed from whoever owns the tensor's file */
    enum tensor_type type;
    int n_dims;
    int64_t dims[TENSOR_MAX_DIMS]; /* 1 beyond n_dims */
    const void *data;              /* borrowed; aligned as the file aligned it */
    size_t bytes;
};

/* "Q4_1" and the like. */
const char *tensor_type_name(enum tensor_type type);

/* Elements and bytes of one block of a type; 1 element for the plain types. */
int tensor_block_elements(enum tensor_type type);
size_t tensor_block_bytes(enum tensor_type type);

/* Bytes of a row of n elements; n a multiple of the block. */
size_t tensor_row_bytes(enum tensor_type type, int64_t n);

/* dims[1] * dims[2] * dims[3] */
int64_t tensor_rows(const struct tensor *tensor);

/* out [n] = the row at `row`, n a multiple of the block. */
void tensor_row_to_f32(enum tensor_type type, const void *row, float *out, int64_t n);

#endif
