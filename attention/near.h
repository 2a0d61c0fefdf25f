/* The near part of a layer: the raw keys and values of the recent tokens, alike on every rank of the ring group.
 *
 * Positions are contiguous: first .. first + length - 1. near_create, sized once; per segment near_extend, near_put
 * for this rank's tokens and near_exchange for those of others that it needs; near_drop for what leaves; near_reset
 * before the next chunk; near_free. Different tokens may be put by different threads at once.
 */
#ifndef LONGHAUL_ATTENTION_NEAR_H
#define LONGHAUL_ATTENTION_NEAR_H

#include <stdint.h>

#include "base/comm.h"
#include "base/device.h"
#include "base/error.h"
#include "base/num.h"

struct near_shape {
    int kv_heads, dim;
    enum dtype dtype;
    int64_t capacity; /* tokens */
};

struct near {
    struct near_shape shape;
    const struct device *device; /* borrowed */
    int64_t first, length;
    char *keys, *values; /* [kv_heads][capacity][dim] in shape.dtype */
};

/* Bytes of keys and values; false where they cannot be counted. */
bool near_bytes(const struct near_shape *shape, size_t *out);

/* ERROR_RESOURCE. near_free also after a near_create that failed. */
int near_create(struct near *near, const struct near_shape *shape, const struct device *device, struct error *err);
void near_free(struct near *near);
void near_reset(struct near *near);

/* n more tokens behind those there are; ERROR_INTERNAL beyond the capacity. */
int near_extend(struct near *near, int64_t n, struct error *err);

/* Forget the tokens before position `first`. */
void near_drop(struct near *near, int64_t first);

/* Keys and values of the token at `position`: k, v [kv_heads][dim] f32, rounded to the dtype. */
void near_put(struct near *near, int64_t position, const float *k, const float *v);

/* The rows of a head from `position` on, [..][dim]. */
void *near_keys(const struct near *near, int kv_head, int64_t position);
void *near_values(const struct near *near, int kv_head, int64_t position);

/* What each rank has put of a segment, and what it needs of it; both rising and disjoint. */
enum { NEAR_OWNED = 2, NEAR_NEEDED = 4 };
struct near_share {
    struct stretch owned[NEAR_OWNED], needed[NEAR_NEEDED];
};

/* Every rank gets the rows it needs straight from the ranks that have them: a halo of window - 1 tokens where that
 * is all, however many blocks it spans. shares [group->size], the same on all ranks. buffer: near_exchange_bytes().
 * Collective. */
int near_exchange(struct near *near, const struct comm *group, const struct near_share *shares, void *buffer,
                  struct error *err);
size_t near_exchange_bytes(const struct near_shape *shape, int64_t max_block);

#endif
