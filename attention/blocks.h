/* Blocks: what has left the near part of a layer, raw, in blocks of BLOCK_TOKENS tokens with a representative key
 * for each query head, shared out evenly over a ring group: block b is held by rank b % ranks (InfLLM: Xiao et al.
 * 2024, arXiv:2402.04617, section 3).
 *
 * A block's representative for a query head is the mean of the BLOCK_VOTED raw keys of its kv head that got most
 * attention from that head's queries while they were near. What a query q is worth to a block is the sum over heads
 * of q . representative. Once `capacity` blocks are held the oldest leave.
 *
 * blocks_create, sized once; blocks_append as tokens leave; blocks_score; blocks_record; blocks_reset before the
 * next chunk; blocks_free.
 */
#ifndef LONGHAUL_ATTENTION_BLOCKS_H
#define LONGHAUL_ATTENTION_BLOCKS_H

#include "attention/near.h"
#include "base/comm.h"
#include "base/device.h"

enum { BLOCK_TOKENS = 128, BLOCK_VOTED = 4 };

struct blocks_shape {
    int heads, kv_heads, dim;
    enum dtype dtype;
    int64_t capacity; /* of all ranks together */
};

struct blocks {
    struct blocks_shape shape;
    const struct device *device;
    int rank, ranks;
    int64_t count;          /* that have come, of all ranks together */
    int64_t held;           /* places on a rank */
    char *records;          /* [held] of [key, value][kv_heads][BLOCK_TOKENS][dim] */
    float *representatives; /* [held][heads][dim] */
};

/* Bytes of one record, and of all that a rank will hold. */
size_t blocks_record_bytes(const struct blocks_shape *shape);
size_t blocks_bytes(const struct blocks_shape *shape, int ranks);

/* ERROR_RESOURCE. blocks_free also after a blocks_create that failed. */
int blocks_create(struct blocks *blocks, const struct blocks_shape *shape, const struct comm *group,
                  const struct device *device, struct error *err);
void blocks_free(struct blocks *blocks);
void blocks_reset(struct blocks *blocks);

/* The next block: the tokens of the near part from position `first` on, which every rank has. attention
 * [heads][stride]: what each token got, of all ranks together, the block's first at [..][0]. */
void blocks_append(struct blocks *blocks, const struct near *near, int64_t first, const int64_t *attention,
                   int64_t stride);

/* Bytes of keys and values that this rank holds. */
size_t blocks_resident(const struct blocks *blocks);

/* The oldest block that is still there. */
int64_t blocks_oldest(const struct blocks *blocks);

/* scores [count - oldest]: of the blocks that this rank holds; 0 for the others. q [heads][dim]. */
void blocks_score(const struct blocks *blocks, const float *q, double *scores);

/* The record of a block that this rank holds, and in it one kv head's rows [BLOCK_TOKENS][dim]. */
char *blocks_record(const struct blocks *blocks, int64_t block);
size_t blocks_keys_at(const struct blocks_shape *shape, int kv_head);
size_t blocks_values_at(const struct blocks_shape *shape, int kv_head);

#endif
