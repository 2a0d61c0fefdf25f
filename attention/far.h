/* The far memory of a layer: what has left the near part, in four bits (attention/far_record.h), in blocks of
 * FAR_BLOCK tokens that are shared out evenly over a ring group: block b is held by rank b % ranks.
 *
 * Block b holds the tokens first_token + b * FAR_BLOCK and on. Once `capacity` blocks are held the oldest leave.
 * far_create, sized once; far_append as tokens leave; far_fetch for records that others hold; far_reset before the
 * next chunk; far_free.
 */
#ifndef LONGHAUL_ATTENTION_FAR_H
#define LONGHAUL_ATTENTION_FAR_H

#include "attention/far_record.h"
#include "attention/near.h"
#include "base/comm.h"
#include "base/device.h"
#include "base/pool.h"

struct far_shape {
    int kv_heads, dim;
    int64_t first_token;
    int64_t capacity; /* blocks of all ranks together */
};

struct far {
    struct far_shape shape;
    const struct device *device;
    int rank, ranks;
    int64_t blocks; /* that have come, of all ranks together */
    int64_t held;   /* places of a kv head on a rank */
    char *records;  /* [kv_heads][held] */
};

bool far_bytes(const struct far_shape *shape, int ranks, size_t *out);
int far_create(struct far *far, const struct far_shape *shape, const struct comm *group,
               const struct device *device, struct error *err);
void far_free(struct far *far);
void far_reset(struct far *far);

/* All whole blocks before position `end`, out of the near part, which has them on every rank. */
void far_append(struct far *far, const struct near *near, int64_t end, struct pool *pool);

/* The oldest block that is still there, and how many there are before block `end`, on this rank: own block i is
 * far_own_block(far, i), i counted from the oldest. */
int64_t far_oldest(const struct far *far);
int64_t far_own(const struct far *far, int64_t end);
int64_t far_own_block(const struct far *far, int64_t i);
size_t far_resident(const struct far *far);

/* The record of a block that this rank holds. */
void *far_record(const struct far *far, int kv_head, int64_t block);

/* A record that a rank wants. */
struct far_want {
    int rank, kv_head;
    int64_t block;
};

/* records := this rank's wants in their order; wants [n] are the same on every rank. stage: as many records as any
 * rank sends and receives. Collective. */
int far_fetch(const struct far *far, const struct comm *group, const struct far_want *wants, int64_t n, void *stage,
              void *records, struct error *err);

#endif
