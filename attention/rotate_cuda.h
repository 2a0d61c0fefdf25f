/* The steps around block attention on a GPU (attend_cuda.h): positions turned into rotations and spans, queries and
 * keys rotated, values moved, the state finished.
 *
 * A segment in one layer: memory_cuda_put keeps its raw keys and values; rotate_cuda_queries begins the state;
 * then for each piece of each rank's memory rotate_cuda_keys, rotate_cuda_spans and the kernel's attend;
 * rotate_cuda_finish. (One token: attend_one_cuda.h.) The numbers are those of ring_block.c and ring_message.c.
 *
 * Every pointer in the structs is to the device's memory, borrowed until the call is over in its stream. Calls are
 * queued; they return 0, or -1 with ERROR_CLUSTER where the launch is refused. Nothing is done where there are no
 * rows. All are bound by memory; rows are read four numbers at a time where dim, half the rotated dimensions and
 * strides are multiples of 4 and rows are aligned to four numbers, else one by one.
 */
#ifndef LONGHAUL_ATTENTION_ROTATE_CUDA_H
#define LONGHAUL_ATTENTION_ROTATE_CUDA_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "attention/attend_cuda.h"
#include "attention/position.h"
#include "base/device.h"
#include "base/error.h"

/* ---- a rope on the GPU ---- */

/* A copy of a rope's tables. Create; update before each segment or step, behind rope_set_length; free. */
struct rope_cuda {
    const struct device *device; /* borrowed */
    struct rope_tables tables;   /* rows: the copy, on the device */
    int64_t revision;            /* of the rope, when it was copied */
};

/* A copy of that rope as it is now. ERROR_RESOURCE where the device has no memory for it. */
int rope_cuda_create(struct rope_cuda *copy, const struct rope *rope, const struct device *device,
                     struct error *err);
void rope_cuda_free(struct rope_cuda *copy);

/* Copy the tables again where rope_revision has changed, behind what is queued in the stream, and wait for it; else
 * nothing. What other streams have queued must not use the copy. */
int rope_cuda_update(struct rope_cuda *copy, const struct rope *rope, cudaStream_t stream, struct error *err);

/* ---- queries and keys ---- */

/* Rotate queries and begin their state: o = 0, m = -inf, l = 0. */
struct rotate_cuda_queries {
    int heads, kv_heads, dim;
    int64_t tokens;
    const float *q; /* [tokens][heads][dim], a token `stride` numbers behind the one before */
    int64_t stride;
    const int64_t *positions; /* [tokens], those that the rope has */
    float scale;              /* of scores; log2(e) comes on top */
    void *out;                /* [kv_heads][tokens][heads / kv_heads][dim] bf16 */
    float *o, *m, *l;         /* the state: shaped as out, and without dim */
};
int rotate_cuda_queries(const struct rope_cuda *rope, const struct rotate_cuda_queries *call, cudaStream_t stream,
                        struct error *err);

/* Rotate n keys of a layer's memory, from index `first` on, and put their values beside them. Behind the last key
 * rows are zeroed up to a whole tile of ATTN_KEY_TILE rows. */
struct rotate_cuda_keys {
    int kv_heads, dim;
    int64_t capacity, first, n;
    const void *keys, *values; /* [kv_heads][capacity][dim] bf16, keys not rotated */
    const int64_t *positions;  /* [n] of the keys first .. first + n */
    const float *offset;       /* [kv_heads][dim] or NULL: added to keys before they are rotated ... */
    const float *slow_cosine;  /* [dim], with offset: offset * slow_cosine is taken off again after */
    int64_t key_rows;          /* at least n rounded up to ATTN_KEY_TILE */
    void *k, *v;               /* [kv_heads][key_rows][dim] bf16 */
};
int rotate_cuda_keys(const struct rope_cuda *rope, const struct rotate_cuda_keys *call, cudaStream_t stream,
                     struct error *err);

/* spans [tokens]: the keys that are not behind the query, as attention/span.h has it, and of these only those in
 * its window. */
struct rotate_cuda_spans {
    const int64_t *query_positions; /* [tokens] */
    int64_t tokens;
    int64_t window;               /* positions, the query's own counted; 0: all */
    const int64_t *key_positions; /* [keys], rising */
    int64_t keys;
    struct attend_span *spans;
};
int rotate_cuda_spans(const struct rotate_cuda_spans *call, cudaStream_t stream, struct error *err);

/* ---- results and memory ---- */

/* out = o / l, 0 where l is 0. */
struct rotate_cuda_finish {
    int heads, kv_heads, dim;
    int64_t tokens;
    const float *o, *l; /* [kv_heads][tokens][heads / kv_heads][dim], and without dim */
    void *out;          /* [tokens][heads][dim] bf16 */
};
int rotate_cuda_finish(const struct rotate_cuda_finish *call, cudaStream_t stream, struct error *err);

/* Keep the keys and values of some tokens in a layer's memory, rounded to bf16. */
struct memory_cuda_put {
    int kv_heads, dim;
    int64_t rows;
    const float *k, *v; /* [rows][kv_heads][dim], a row `stride` numbers behind the one before */
    int64_t stride;
    int64_t capacity, first; /* the first row goes to index `first` */
    void *keys, *values;     /* [kv_heads][capacity][dim] bf16 */
};
int memory_cuda_put(const struct memory_cuda_put *call, cudaStream_t stream, struct error *err);

#ifdef __cplusplus
}
#endif

#endif
