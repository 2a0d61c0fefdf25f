/* Slots of a layer: keys and values that a policy keeps of the past, shared out evenly over a ring group: slot i of
 * every kv head is held by rank i % ranks.
 *
 * slots_create, sized once; slots_gather puts all of them together on every rank, in their order; slots_apply makes
 * the next ones from candidates. slots_reset before the next chunk.
 */
#ifndef LONGHAUL_ATTENTION_SLOTS_H
#define LONGHAUL_ATTENTION_SLOTS_H

#include <stdint.h>

#include "attention/convolution.h"
#include "attention/keep.h"
#include "base/comm.h"
#include "base/device.h"
#include "base/error.h"
#include "base/num.h"

struct slots_shape {
    int kv_heads, dim;
    enum dtype dtype;
    int64_t capacity; /* of all ranks together; may be 0 */
};

struct slots {
    struct slots_shape shape;
    const struct device *device;
    int rank, ranks;
    int64_t count;       /* of all ranks together, in every kv head */
    int64_t held;        /* rows of a head that one rank can hold */
    char *keys, *values; /* [kv_heads][held][dim]: this rank's */
};

/* Runs of rows, one a kv head: head h begins at h * head_bytes. */
struct rows_view {
    char *keys, *values;
    size_t head_bytes;
};

/* Bytes that a rank has for its slots; false where they cannot be counted. */
bool slots_bytes(const struct slots_shape *shape, int ranks, size_t *out);

/* ERROR_RESOURCE. slots_free also after a slots_create that failed. */
int slots_create(struct slots *slots, const struct slots_shape *shape, const struct comm *group,
                 const struct device *device, struct error *err);
void slots_free(struct slots *slots);
void slots_reset(struct slots *slots);

/* How many of the slots this rank holds. */
int64_t slots_own(const struct slots *slots);

/* All slots to `out`, on every rank. stage: slots_stage_bytes(). Collective; ERROR_CLUSTER. */
int slots_gather(const struct slots *slots, const struct comm *group, const struct rows_view *out, void *stage,
                 struct error *err);
size_t slots_stage_bytes(const struct slots_shape *shape, int ranks);

/* What slots are made of: candidates 0 .. keep->slots - 1 are the rows of `old` (from slots_gather), the others
 * those of `leaving`. For POOL_CONVOLUTION the layer's weights and the keys' offset [kv_heads][dim], or NULL. */
struct slots_source {
    struct rows_view old, leaving;
    const struct convolutions *convolutions;
    const float *key_offset;
};

/* The slots become those of keep->recipes. */
void slots_apply(struct slots *slots, const struct keep *keep, const struct slots_source *source);

#endif
