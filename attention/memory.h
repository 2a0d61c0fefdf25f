/* Memory: raw (un-rotated) keys and values of the past and their positions, one rank's shard of one chunk.
 *
 * memory_create, sized once; per segment, where a window bounds it, memory_keep_last, then memory_extend with the
 * positions of this rank's new tokens, then memory_put for each of them in each layer; memory_reset before the next
 * chunk; memory_free. Every layer holds the same tokens, in rising order of position. Tokens count as there from
 * memory_extend on, so that a segment attends to itself. Different tokens may be put by different threads at once.
 */
#ifndef LONGHAUL_ATTENTION_MEMORY_H
#define LONGHAUL_ATTENTION_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/device.h"
#include "base/error.h"
#include "base/num.h"

struct memory_shape {
    int layers, kv_heads, dim;
    enum dtype dtype;
    int64_t capacity; /* tokens */
    bool on_host;     /* keys and values lie in the host's memory, where a device reads them over its bus */
    /* [layers] of [kv_heads][dim], borrowed, or NULL: what every key of a layer has in common and is kept without
     * (the key bias of a model). It is added again, in f32, where keys are used: bf16 then rounds what tells keys
     * apart, not a sum that is a hundred times larger. */
    const float *const *key_offsets;
};

struct memory {
    struct memory_shape shape;
    const struct device *device; /* that uses the data; borrowed */
    int64_t length;              /* tokens, all layers alike */
    int64_t *positions;          /* [capacity], rising */
    int64_t *device_positions;   /* the same on a device that the host cannot reach; else NULL */
    void *keys, *values;         /* [layers][kv_heads][capacity][dim] in shape.dtype; used on the device */
};

/* Bytes of a token's keys and values, of all keys and values, and of the positions, which are always on the device;
 * fails (ERROR_RESOURCE) on overflow. */
struct memory_sizes {
    size_t token, keys, positions;
};
int memory_bytes(const struct memory_shape *shape, struct memory_sizes *out, struct error *err);

/* An empty memory of that shape; the sizes in it are at least 1. */
struct memory *memory_create(const struct memory_shape *shape, const struct device *device, struct error *err);
void memory_free(struct memory *memory);
void memory_reset(struct memory *memory);

/* Make room for n more tokens at these rising positions (all above what is there) in every layer; the first gets
 * the old length as its index. ERROR_INTERNAL when the capacity is passed or the positions do not rise; then
 * nothing has changed; ERROR_CLUSTER where the device fails, and then the memory is of no more use. The keys and
 * values follow through memory_put, or memory_cuda_put. */
int memory_extend(struct memory *memory, const int64_t *positions, int64_t n, struct error *err);

/* Only the last `kept` tokens stay, at most half of those that are there, and get the indices from 0 on.
 * ERROR_CLUSTER where the device fails. */
int memory_keep_last(struct memory *memory, int64_t kept, struct error *err);

/* Keys and values of one token in one layer: k, v [kv_heads][dim] f32, rounded to the memory's dtype. Where the
 * host can reach the memory. */
void memory_put(struct memory *memory, int layer, int64_t index, const float *k, const float *v);

/* What is to be added to the raw keys of a head, [dim], or NULL. */
const float *memory_key_offset(const struct memory *memory, int layer, int kv_head);

/* The run [capacity][dim] of one head. */
const void *memory_keys(const struct memory *memory, int layer, int kv_head);
const void *memory_values(const struct memory *memory, int layer, int kv_head);

#endif
