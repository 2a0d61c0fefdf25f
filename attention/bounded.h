/* Bounded attention: layers whose past is bounded by a policy, on a ring group.
 *
 * Holds, for each such layer, the banks that attention/policy.h names: near and sinks alike on every rank, slots
 * shared out evenly (slot i is kept by rank i % ranks). What is resident does not grow once the bounds are reached.
 *
 * bounded_create; per chunk bounded_reset; per segment bounded_begin, then per layer bounded_put for each of this
 * rank's tokens (those of its zigzag block) and bounded_attend, which also applies the policy's rule at the end; in
 * decode per token bounded_begin_one, then per layer bounded_put on every rank and bounded_attend_one. Layers are
 * counted among the bounded ones only. All ranks of the group make the same calls.
 */
#ifndef LONGHAUL_ATTENTION_BOUNDED_H
#define LONGHAUL_ATTENTION_BOUNDED_H

#include <stdint.h>

#include "attention/convolution.h"
#include "attention/decoder.h"
#include "attention/kernel.h"
#include "attention/policy.h"
#include "attention/position.h"
#include "base/comm.h"
#include "base/device.h"
#include "base/pool.h"

struct bounded;

struct bounded_options {
    const struct comm *group; /* borrowed, as all below */
    struct pool *pool;
    const struct device *device;
    const struct attn_kernel *kernel;
    struct decoder *decoder;         /* NULL: no decode */
    const struct policy_spec *specs; /* [layers], none of them POLICY_FULL */
    const float *const *key_offsets; /* [layers] of [kv_heads][dim], what keys are kept without; or NULL */
    const struct convolutions *const
        *convolutions; /* [layers] of the model's, for compressive:form=conv; or NULL */
    int layers, heads, kv_heads, dim;
    int64_t max_tokens;                 /* of a chunk: no far memory is larger */
    int64_t max_segment, max_generated; /* tokens of a segment; tokens of a chunk that come one by one */
    void (*poll)(void *context);        /* called often from the calling thread, may be NULL */
    void *poll_context;
};

/* Bytes that bounded_create will allocate on a rank, small change aside; of the group only its size is looked at.
 * ERROR_INPUT for heads that the kernels cannot do, ERROR_RESOURCE for more bytes than can be counted. */
int bounded_bytes(const struct bounded_options *options, size_t *out, struct error *err);

/* NULL with one of these errors, or ERROR_RESOURCE where there is no memory. */
struct bounded *bounded_create(const struct bounded_options *options, struct error *err);
void bounded_free(struct bounded *bounded);
void bounded_reset(struct bounded *bounded);

/* The next segment [first, end), in every layer. ERROR_INTERNAL where the near part has no room for it. */
int bounded_begin(struct bounded *bounded, int64_t first, int64_t end, struct error *err);

/* Keys and values [kv_heads][dim] f32 of the token at `position`. Different tokens from different threads at once.
 */
void bounded_put(struct bounded *bounded, int layer, int64_t position, const float *k, const float *v);

/* The queries of this rank's block of the segment. q: row t is q + t * stride, [heads][dim] f32, raw;
 * out [tokens][heads * dim] in the kernel's dtype. */
struct bounded_queries {
    const float *q;
    int64_t stride; /* in floats */
    float scale;
    const struct rope *rope;
    void *out;
};

/* Attention of this rank's block in that layer, which then takes in what leaves the near part. Collective;
 * ERROR_CLUSTER, ERROR_RESOURCE. */
int bounded_attend(struct bounded *bounded, int layer, const struct bounded_queries *queries, struct error *err);

/* One token more, in every layer. */
int bounded_begin_one(struct bounded *bounded, struct error *err);

/* The query of that token, the same on every rank; its result is the decoder's. Collective; the same errors. */
int bounded_attend_one(struct bounded *bounded, int layer, const struct decoder_query *query, struct error *err);

/* Bytes of keys and values that the layers hold now, for the log and the receipts. */
size_t bounded_resident(const struct bounded *bounded);

/* Of the tokens so far, how many the next one cannot attend to any more, in the layer that has lost fewest: they
 * are not near, not among the first, and in nothing that is kept of the past. A slot that was made of several
 * tokens counts for all of them; where heads keep different tokens it is what each of them has lost. Between
 * segments, or between tokens of decode; the same on every rank. */
int64_t bounded_forgotten(const struct bounded *bounded);

#endif
