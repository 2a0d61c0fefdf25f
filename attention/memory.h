/* Memory: raw (un-rotated) keys and values of the past and their positions, one rank's shard of one chunk.
 *
 * memory_create once per ring group's chunk (sized once), memory_append for each layer of a segment's block,
 * then memory_commit once all layers are in; memory_reset for the next chunk. Every layer holds the same
 * tokens, in rising order of position. Keys that are appended but not committed are visible through
 * memory_length(), so that a segment attends to itself.
 */
#ifndef LONGHAUL_ATTENTION_MEMORY_H
#define LONGHAUL_ATTENTION_MEMORY_H

#include <stdint.h>

#include "base/device.h"
#include "base/error.h"
#include "base/num.h"

struct memory_shape {
    int layers, kv_heads, dim;
    enum dtype dtype;
    int64_t capacity; /* tokens */
};

struct memory {
    struct memory_shape shape;
    const struct device *device; /* where the data lies; borrowed */
    int64_t length;              /* tokens, all layers alike */
    int64_t *positions;          /* [capacity], rising */
    void *keys, *values;         /* [layers][kv_heads][capacity][dim] in shape.dtype */
};

/* Bytes of keys, values and positions; fails (ERROR_RESOURCE) on overflow. */
int memory_bytes(const struct memory_shape *shape, size_t *out, struct error *err);

struct memory *memory_create(const struct memory_shape *shape, const struct device *device, struct error *err);
void memory_free(struct memory *memory);
void memory_reset(struct memory *memory);

/* Make room for n more tokens at these rising positions (all above what is there) in every layer; their index is
 * the old length. ERROR_INTERNAL when the capacity is passed. The keys and values follow through memory_put. */
int memory_extend(struct memory *memory, const int64_t *positions, int64_t n, struct error *err);

/* Keys and values of one token in one layer: k, v [kv_heads][dim] f32, rounded to the memory's dtype. */
void memory_put(struct memory *memory, int layer, int64_t index, const float *k, const float *v);

/* The run [capacity][dim] of one head. */
const void *memory_keys(const struct memory *memory, int layer, int kv_head);
const void *memory_values(const struct memory *memory, int layer, int kv_head);

#endif
