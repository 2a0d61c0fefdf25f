/* Decode: attention of one token's query over raw keys that are shared out over the ranks of a ring group.
 *
 * Each rank attends to the parts that it holds and one all-gather of (output, log-sum-exp) merges the ranks'
 * answers in the order of ranks: the same bits everywhere, and a volume that does not depend on how many keys there
 * are. The arithmetic is that of attention/decode.h; keys are rotated as they are read.
 *
 * decoder_create; per token and layer decoder_attend, on all ranks of the group; decoder_free.
 */
#ifndef LONGHAUL_ATTENTION_DECODER_H
#define LONGHAUL_ATTENTION_DECODER_H

#include <stdint.h>

#include "attention/position.h"
#include "base/comm.h"
#include "base/device.h"
#include "base/num.h"
#include "base/pool.h"

struct decoder;

enum { DECODER_PARTS = 4 }; /* most parts of a call */

struct decoder_options {
    const struct comm *group; /* borrowed, as all below */
    struct pool *pool;
    const struct device *device;
    enum dtype dtype; /* of the keys and values */
    int heads, kv_heads, dim;
    int64_t max_keys;            /* most keys of all parts of a call together, on any rank */
    void (*poll)(void *context); /* called often from the calling thread, may be NULL */
    void *poll_context;
};

/* Bytes that decoder_create will allocate; of the group only its size is looked at. */
int decoder_bytes(const struct decoder_options *options, size_t *out, struct error *err);

/* ERROR_INPUT for heads it cannot do, ERROR_RESOURCE without memory. Nothing is allocated later. */
struct decoder *decoder_create(const struct decoder_options *options, struct error *err);
void decoder_free(struct decoder *decoder);

/* What a rank has made by itself of keys that are not among the parts: o [heads][dim] and its natural
 * log-sum-exp [heads], -inf where there were none. */
struct decoder_result {
    const float *o, *lse;
};

/* The query, the same on every rank. */
struct decoder_query {
    const float *q; /* [heads][dim], raw; not looked at where there are no parts */
    float scale;    /* 1/sqrt(dim), or the model's own */
    const struct rope *rope;
    const struct decoder_result *beside; /* this rank's, to be merged with its parts; or NULL */
    float *out; /* [heads * dim], the same bits on every rank; 0 where there is no key at all */
};

/* Keys and values that this rank holds, all of them seen by the query. May be empty. */
struct decoder_part {
    const void *keys, *values; /* kv head h: [n][dim] of the dtype at h * head_stride_bytes, raw */
    size_t head_stride_bytes;
    const int64_t *positions; /* [n], never falling, shared by the heads; NULL: first_position + i * step */
    int64_t first_position, step;
    int64_t n;
    int64_t query_position;  /* of the query, for this part; not before its keys */
    const float *key_offset; /* [kv_heads][dim] added to every key, or NULL */
    float weight;            /* what a key of this part counts for in the softmax: 1, or more for pooled keys */
};

/* query->out = attention over the parts [n_parts <= DECODER_PARTS] of all ranks together. Ranks may have different
 * parts. ERROR_INTERNAL for what the decoder was not made for, ERROR_CLUSTER for MPI. */
int decoder_attend(struct decoder *decoder, const struct decoder_query *query, const struct decoder_part *parts,
                   int n_parts, struct error *err);

#endif
